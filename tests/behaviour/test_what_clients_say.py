"""What bare clients send is discarded, counted and never answered; too much of it ends the connection, and its end is always noticed."""

from __future__ import annotations

import pytest
import trio

from tests.support.brokers import EmbeddedBroker
from tests.support.calls import metric, running, until
from tests.support.chats import Chats, message
from tests.support.clients import Opcode, client_frame, close_code, open_chat, open_raw, receive_path
from tests.support.deadlines import HANG_SECONDS


@pytest.mark.promise("p-discarded")
async def test_text_is_discarded_and_counted_and_not_answered(embedded: EmbeddedBroker, chats: Chats) -> None:
    embedded.create_topic(chats.topic("global"))
    async with running(chats.settings_for(embedded)) as server, open_raw(server.url, receive_path("alice")) as client:
        for text in (b'{"text":"hello"}', b"", "👩‍👧".encode(), b"x" * 65_536):
            await client.send_frame(Opcode.TEXT, text)
        await client.send_frame(Opcode.BINARY, b"\xff\x00")
        await client.ping()
        embedded.produce(chats.topic("global"), message("hello"))
        await client.next_text()
        assert [frame.opcode for frame in client.frames_read] == [Opcode.PONG, Opcode.TEXT]
        assert await metric(server.url, "client_messages_discarded_total") == 5


@pytest.mark.promise("p-talk")
async def test_over_a_thousand_messages_in_ten_seconds_are_too_many(embedded: EmbeddedBroker, chats: Chats) -> None:
    embedded.create_topic(chats.topic("global"))
    async with (
        running(chats.settings_for(embedded)) as server,
        open_chat(server.url, "bob") as other,
        open_raw(server.url, receive_path("alice")) as client,
    ):
        await client.send(client_frame(Opcode.TEXT, b"chatter") * 1000)
        await client.ping()  # a thousand are not too many
        await client.send_frame(Opcode.TEXT, b"one more")
        frames = await client.read_to_end()
        assert [close_code(frame) for frame in frames] == [(1008, "over 1000 messages in 10 s; this service only sends")]
        await until(lambda: server.service.slots_taken == 1)
        assert await metric(server.url, 'sessions_closed_total{code="1008"}') == 1
        embedded.produce(chats.topic("global"), message("hello"))
        assert await other.texts(1) == ["hello"]


async def test_the_end_of_a_client_that_said_much_is_seen(embedded: EmbeddedBroker, chats: Chats) -> None:
    async with running(chats.settings_for(embedded)) as server:
        for leave in ("close frame", "FIN", "RST"):
            async with open_raw(server.url, receive_path("alice")) as client:
                await until(lambda: server.service.slots_taken == 1)
                last = client_frame(Opcode.CLOSE, (4001).to_bytes(2, "big") + b"bye") if leave == "close frame" else b""
                await client.send(client_frame(Opcode.TEXT, b"chatter") * 30 + last)
                if leave == "close frame":
                    assert [close_code(frame) for frame in await client.read_to_end()] == [(4001, "bye")]
                elif leave == "FIN":
                    await client.half_close()
                else:
                    client.reset()
                await until(lambda: server.service.slots_taken == 0)
        assert await metric(server.url, "client_messages_discarded_total") >= 60
        assert await metric(server.url, 'sessions_closed_total{code="1006"}') == 2
        assert await metric(server.url, 'sessions_closed_total{code="other"}') == 1


async def test_what_is_said_while_the_session_is_stuck_in_sending_is_taken_too(embedded: EmbeddedBroker, chats: Chats) -> None:
    topic = chats.topic("global")
    embedded.create_topic(topic)
    async with running(chats.settings_for(embedded)) as server, open_raw(server.url, receive_path("a"), receive_buffer=4096) as client:
        await trio.to_thread.run_sync(embedded.produce_many, topic, [message("x" * 1000)] * 2000)
        with trio.fail_after(HANG_SECONDS):
            while not await metric(server.url, "owed_bytes"):
                pass
        await client.send(client_frame(Opcode.TEXT, b"chatter") * 30)
        with trio.fail_after(HANG_SECONDS):
            while await metric(server.url, "client_messages_discarded_total") < 30:
                pass
        client.reset()
        await until(lambda: server.service.slots_taken == 0)
        assert await metric(server.url, "owed_bytes") == 0
