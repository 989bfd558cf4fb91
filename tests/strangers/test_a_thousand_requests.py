"""The thousandth answer on a connection says that it is the last, and later requests are ignored."""

from __future__ import annotations

import pytest

from tests.support.brokers import EmbeddedBroker
from tests.support.calls import following, running
from tests.support.chats import Chats
from tests.support.raw_client import open_raw

MOST = 1_000
HANG_SECONDS = 30.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
SUBSCRIBING = b"POST /subscribing/ann?topic=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.promise("p-thousand-requests")
async def test_the_thousandth_answer_is_announced_as_the_last(embedded: EmbeddedBroker, chats: Chats):
    async with running(chats.settings_for(embedded)) as server, open_raw(server.url) as client:
        await client.send(HEALTH * (MOST - 1) + SUBSCRIBING % b"done" + SUBSCRIBING % b"undone")
        answers = (await client.wait_ended(seconds=HANG_SECONDS)).lower().split(b"http/1.1 200 ")[1:]
        followed = await following(server.url, "ann")
    assert [number for number, answer in enumerate(answers, 1) if b"connection: close" in answer] == [MOST]
    assert "done" in followed
    assert "undone" not in followed
    assert len(answers) == MOST
