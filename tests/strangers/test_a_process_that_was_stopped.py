"""A process that was stopped and continues (SIGSTOP, a paused machine) loses no client that stayed connected."""

from __future__ import annotations

import json
import signal

import trio

from tests.support.calls import until
from tests.support.clients import Opcode, http, open_raw, receive_path
from tests.support.serving import spawned, until_ready

STOPPED_SECONDS = 4.0  # twice what a client may be silent for


async def test_clients_that_wait_for_messages_stay_when_the_process_was_stopped_for_longer_than_they_may_be_silent() -> None:
    limits = {"KAFKA_CHAT_LIMITS__PING_SECONDS": "1", "KAFKA_CHAT_LIMITS__PONG_SECONDS": "1", "KAFKA_CHAT_SENDING__ENABLED": "true"}
    async with spawned("--embedded", env=limits) as server, open_raw(server.url, receive_path("ann")) as ann:
        await until_ready(server)
        texts, pings = [], 0

        async def listen() -> None:
            nonlocal pings
            while (frame := await ann.read_frame()) is not None and frame.opcode is not Opcode.CLOSE:
                if frame.opcode is Opcode.PING:
                    pings += 1
                    await ann.send_frame(Opcode.PONG, frame.payload)
                elif frame.opcode is Opcode.TEXT:
                    texts.append(json.loads(frame.payload)["text"])
                    return

        async with trio.open_nursery() as listening:
            listening.start_soon(listen)
            server.signal(signal.SIGSTOP)
            await trio.sleep(STOPPED_SECONDS)
            server.signal(signal.SIGCONT)
            # A whole round of looks, as the pings show, and then a message.
            before = pings
            await until(lambda: pings >= before + 2)
            sent = {"sender": "bob", "text": "hello"}
            assert (await http(server.url, "POST", "/send-message/chat/global", json_body=sent)).status == 200
        assert texts == ["hello"]
        assert "connection.aborted" not in server.stderr
