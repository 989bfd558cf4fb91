"""When many clients ask brokers at the same instant, they take turns: one question per iteration of the loop."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

import trio

from kafka_chat.delivery.timeouts import BrokerTimeouts
from kafka_chat.kafka.admins import MANY_PARTS, Admins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka.admin import AdminClient

CLIENTS = 50


class AskedAndAnswered:
    """Counts, for each round of the loop, the questions that are asked and the answers that go on in it.

    To ask about 90 topics takes 2 ms of the loop's time, and so do the answers: librdkafka's client makes an object of each.
    """

    def __init__(self) -> None:
        self.asked = self.answered = self.most = 0

    def ask(self, _: AdminClient, seconds: float) -> Mapping[str, Future[str]]:
        self.asked += 1
        assert seconds > 0
        future: Future[str] = Future()
        future.set_result("here")
        return {"topic": future}

    async def request(self, admins: Admins) -> None:
        """What a request does: it asks, and does something with the answer."""
        assert await admins.asked(self.ask, "asking", parts=MANY_PARTS) == {"topic": "here"}
        self.answered += 1

    async def watch(self) -> None:
        before = 0
        while True:
            await trio.lowlevel.checkpoint()
            now = self.asked + self.answered
            self.most, before = max(self.most, now - before), now


async def test_of_questions_in_one_instant_one_is_asked_or_answered_in_each_round():
    admins = Admins([cast("AdminClient", object())] * 2, BrokerTimeouts())
    seen = AskedAndAnswered()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen.watch)
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(seen.request, admins)
        nursery.cancel_scope.cancel()
    assert (seen.asked, seen.answered) == (CLIENTS, CLIENTS)  # none was asked twice for having waited for its turn
    assert seen.most <= 4  # one is asked and another answered in a round, and the watcher may run first in one and last in the next


async def test_a_client_that_leaves_while_it_waits_for_its_turn_keeps_nobody_waiting():
    admins = Admins([cast("AdminClient", object())] * 2, BrokerTimeouts())
    seen = AskedAndAnswered()
    async with trio.open_nursery() as staying, trio.open_nursery() as leaving:
        for _ in range(CLIENTS // 2):
            staying.start_soon(seen.request, admins)
            leaving.start_soon(seen.request, admins)
        for _ in range(6):  # a round each: a few have asked
            await trio.lowlevel.checkpoint()
        leaving.cancel_scope.cancel()
    assert CLIENTS // 2 <= seen.answered < CLIENTS
