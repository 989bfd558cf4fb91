"""While brokers hang, a dialogue answers each message with an error, and ends at once when it should end."""

from __future__ import annotations

import json

import trio

from tests.support.brokers import KafkaCluster
from tests.support.calls import metric, running, until
from tests.support.chats import Chats
from tests.support.clients import Opcode, close_code, open_raw
from tests.support.deadlines import HANG_SECONDS

HELLO = b'{"sender":"ann","text":"hello"}'


async def test_a_dialogue_outlives_its_brokers_absence_and_ends_while_it_waits_for_them(hanging: KafkaCluster, chats: Chats) -> None:
    hanging.create_topic(chats.topic("room1"))
    settings = chats.settings_for(hanging, sending__enabled=True)
    async with running(settings, check_leaks=False) as server:
        asks = {"/send-message/chat/room1": HELLO, "/subscribing/ann": b"room1"}
        async with open_raw(server.url, "/send-message/chat/room1") as sender, open_raw(server.url, "/subscribing/ann") as subscriber:
            both = dict(zip((sender, subscriber), asks.values(), strict=True))
            hanging.freeze()
            for client, asked in both.items():
                await client.send_frame(Opcode.TEXT, asked)
            for client in both:
                refused = json.loads(await client.next_text())
                assert (set(refused), refused["field"]) == ({"error", "field"}, None)
            hanging.thaw()
            for client, asked in both.items():
                with trio.fail_after(HANG_SECONDS):
                    while True:
                        await client.send_frame(Opcode.TEXT, asked)
                        if "error" not in json.loads(await client.next_text()):
                            break
            hanging.freeze()
            for client, asked in both.items():
                await client.send_frame(Opcode.TEXT, asked)
            sender.reset()  # a client that goes while it waits for its answer
            await until(lambda: server.service.slots_taken == 1, seconds=3)
            assert await metric(server.url, "sessions") == 1
            began = trio.current_time()
            server.shut_down()
            assert [close_code(frame)[0] for frame in await subscriber.read_to_end()] == [1012]
            assert trio.current_time() - began < 1.5
            hanging.thaw()
        await server.ended()
