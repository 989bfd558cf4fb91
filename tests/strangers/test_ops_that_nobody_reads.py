"""A client sends ops and does not read the answers; others change the subscriptions of a user who does not read. No one else notices."""

from __future__ import annotations

import json

import pytest
import trio
from hypercorn.config import Config

from kafka_chat.delivery.session.dialogue import WAITING_BYTES
from kafka_chat.delivery.session.resumable_session import ResumableSession
from tests.support.brokers import KafkaCluster
from tests.support.calls import running, until
from tests.support.chats import Chats, message
from tests.support.clients import http, receive_path
from tests.support.loop_steps import loop_steps
from tests.support.raw_client import Opcode, client_frame, close_code, open_raw
from tests.support.serving import Server
from tests.support.v1_client import open_v1

ENDLESS = 2000  # ops; a kernel holds the answers to a few hundred at most
ANSWERED_BY_32_KB = json.dumps({"op": "subscribe", "chats": ["global"] * 100, "re": "x" * 198}).encode()


def session_of(server: Server, username: str) -> ResumableSession:
    """The session of a user with one socket."""
    (session,) = (live for live in server.service._live if live.username == username)
    assert isinstance(session, ResumableSession)
    return session


@pytest.mark.promise("p-asked-is-bounded")
async def test_a_client_that_asks_and_does_not_read_is_closed_at_the_thirty_third_op_that_waits(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with running(chats.settings_for(kafka)) as server, open_v1(server.url, "canary") as canary:
        await canary.control("live")
        async with open_raw(server.url, receive_path("stranger") + "?meta=1", receive_buffer=4096) as stranger:
            session = session_of(server, "stranger")
            with loop_steps() as steps, trio.fail_after(60):
                for _ in range(ENDLESS):
                    if session._closing is not None:
                        break
                    await stranger.send_frame(Opcode.TEXT, ANSWERED_BY_32_KB)
                    await trio.sleep(0.011)  # a thousand messages in ten seconds would be another reason
                kafka.produce(chats.topic("global"), message("hello"))
                assert await canary.texts(1) == ["hello"]
                frames = await stranger.read_to_end(seconds=30)
            steps.check(ignore=("test_a_client",))
        assert close_code(frames[-1]) == (1008, "over 32 ops wait for their answers")
        assert server.service._memory.owed_bytes == 0


async def test_a_user_who_reads_nothing_holds_little_of_what_others_do_and_learns_of_it_in_the_end(
    kafka: KafkaCluster, chats: Chats
) -> None:
    kafka.create_topic(chats.topic("global"))
    kafka.create_topic(chats.topic("room"))
    async with running(chats.settings_for(kafka)) as server:
        async with open_raw(server.url, receive_path("victim") + "?meta=1", receive_buffer=4096) as victim:
            session = session_of(server, "victim")
            while json.loads(await victim.next_text())["meta"]["type"] != "live":
                pass
            for _ in range(200):  # 6 MB, more than a kernel takes for it: from here on its notices wait
                kafka.produce(chats.topic("global"), message("x" * 30_000))
            await until(lambda: session.sink.owed, seconds=60)
            for n in range(60):
                method = "DELETE" if n % 2 else "POST"
                assert (await http(server.url, method, f"/subscribing/victim?topic=room&topic=new{n // 2}")).status == 200
                assert len(session._notices) <= 2
            assert (await http(server.url, "POST", "/subscribing/victim?topic=room")).status == 200
            kafka.produce(chats.topic("room"), message("hello"))
            notices = []
            while (said := json.loads(await victim.next_text(seconds=30))).get("text") != "hello":
                if "type" in said["meta"]:
                    notices.append(said["meta"])
        assert [(notice["type"], notice["chat"]) for notice in notices] == [("subscribed", "room")]


SERVER_QUEUE = Config().max_app_queue_size  # messages that wait in hypercorn until the app takes them


@pytest.mark.parametrize("path", ["/subscribing/stranger", "/send-message/chat/global"])
@pytest.mark.promise("p-asked-is-bounded")
async def test_a_dialogue_whose_answers_nobody_reads_holds_its_share_and_no_more(path: str, kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    settings = chats.settings_for(kafka, sending__enabled=True, limits__write_seconds=2.0)
    message_bytes = settings.limits.client_message_bytes
    most = WAITING_BYTES + (1 + SERVER_QUEUE + 2) * (
        message_bytes + 100
    )  # one more, those in the server, one to go there and a part of one
    async with running(settings) as server, open_v1(server.url, "canary") as canary:
        await canary.control("live")
        async with open_raw(server.url, path, receive_buffer=4096) as stranger:
            frame = client_frame(Opcode.TEXT, b"x" * (message_bytes - 1))

            async def ask() -> None:
                while True:
                    await stranger.send(frame)
                    assert server.service._memory.owed_bytes <= most

            with loop_steps() as steps, trio.fail_after(60), pytest.raises(trio.BrokenResourceError):  # it is cut for not reading
                await ask()
            steps.check(ignore=("test_a_dialogue",))
        kafka.produce(chats.topic("global"), message("hello"))
        assert await canary.texts(1) == ["hello"]
        await until(lambda: server.service.slots_taken <= 1, seconds=30)
        assert server.service._memory.owed_bytes == 0
