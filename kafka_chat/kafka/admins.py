"""Asks brokers through two AdminClients, in several attempts side by side, until one is answered."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio
from confluent_kafka import KafkaError, KafkaException

from ..errors import BrokerUnreachable
from ..loop_sharing import TurnInLine
from ..nursery import open_tasks
from .connect import admin_futures, unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from concurrent.futures import Future

    from confluent_kafka.admin import AdminClient

    from ..delivery.timeouts import BrokerTimeouts

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")

# How often an unanswered request is repeated. A request made while the client connects may never be sent (one in twenty of the
# first requests), and only its timeout ends it. Other requests go to one broker, the "controller", which may hang: the next
# attempt uses the other client, which may know another controller, and later attempts first look for another one. An attempt is
# not cancelled when the next one begins: it may only be slow, and librdkafka would close the connection and reconnect, which
# may take longer than an attempt.
TRIES = 8
TRIES_IN_A_ROW = 5  # with three brokers, every third attempt may meet the one that hangs; after these, half as often
LATE_SECONDS = 0.2  # how late librdkafka may report a timeout; partial answers come with it
LEAST_SECONDS = 0.4  # less is too short for an answer
CONTROLLERS = 10  # listings until one names another controller: each names any broker, including one that was just killed
LOG_SECONDS = 1.0
# A request about 90 topics takes 2 ms, because the client makes objects for each topic, and so does the work on its answers. With
# hundreds in one iteration of the loop, new connections would wait for many iterations of 100 ms. Small requests need no turn: a
# page of history makes several, and would wait behind all others each time.
MANY_PARTS = 10
PING_TOPIC = "kafka_chat-ping"  # it does not exist, and asking for it does not create it

_UNTOLD = KafkaError(KafkaError._TIMED_OUT)


class Admins:
    """Two AdminClients, used in turns.

    Args:
        clients: both.
        timeouts: how long to wait for brokers.
    """

    def __init__(self, clients: Sequence[AdminClient], timeouts: BrokerTimeouts) -> None:
        self._admins = [_Admin(client, timeouts) for client in clients]
        self._timeouts = timeouts

    async def run_log(self) -> None:
        """Write the clients' log lines, until cancelled; otherwise they pile up in the clients."""
        while True:
            self.poll()
            await trio.sleep(LOG_SECONDS)

    def poll(self) -> None:
        """Let them report their log lines and errors now."""
        for admin in self._admins:
            admin.client.poll(0)

    def close(self) -> None:
        """Release the clients, which end with their last reference; ask nothing afterwards."""
        for admin in self._admins:
            admin.closed = True
        self._admins.clear()

    async def asked(
        self,
        ask: Callable[[AdminClient, float], Mapping[K, Future[T]]],
        doing: str,
        *,
        parts: int = 1,
        told: Callable[[T], bool] = lambda _: True,
    ) -> dict[K, T | KafkaError]:
        """Return the answers to `ask(client, seconds)`, repeated until no answer is missing or the time is over.

        Args:
            ask: makes the request.
            doing: the purpose, for the error.
            parts: how many topics or partitions it asks about.
            told: whether a result is an answer. If a broker hangs, `list_offsets` returns a result without an offset, and no error.

        Raises:
            BrokerUnreachable: no broker answered in time.
        """
        seconds = self._timeouts.answer_seconds
        until = trio.current_time() + seconds
        best: dict[K, T | KafkaError] | None = None
        over = trio.Event()
        turn = TurnInLine("questions") if parts >= MANY_PARTS else None
        self._admins.reverse()
        admins = tuple(self._admins)

        async def try_it(number: int) -> None:
            nonlocal best
            admin = admins[number % len(admins)]
            if number >= len(admins):
                await admin.learn()
            left = until - trio.current_time()
            if left < LEAST_SECONDS:
                return
            with suppress(BrokerUnreachable):
                futures = ask(admin.client, left - LATE_SECONDS)
                found = await admin_futures(futures, doing=doing, timeout_seconds=left, timeouts=self._timeouts, told=told)
                answers = {key: answer if isinstance(answer, KafkaError) or told(answer) else _UNTOLD for key, answer in found.items()}
                if best is None or _untold(answers) <= _untold(best):
                    best = answers
                if not _untold(best):
                    over.set()

        async with open_tasks() as tries:
            with trio.move_on_at(until):
                for number in range(TRIES):
                    if turn is not None:
                        await turn.begin()
                    tries.start_soon(try_it, number)
                    with trio.move_on_after(self._timeouts.again_seconds * (1 if number < TRIES_IN_A_ROW else 2)):
                        await over.wait()
                    if over.is_set():
                        break
                await over.wait()
        if best is None:
            raise BrokerUnreachable(f"{doing} failed: no broker answered within {seconds:g} s")
        if turn is not None:
            await turn.begin()
        return best


class _Admin:
    """One AdminClient, and the controller it last learned of."""

    def __init__(self, client: AdminClient, timeouts: BrokerTimeouts) -> None:
        self.client = client
        self.closed = False
        self._timeouts = timeouts
        self._learning = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._learned = float("-inf")
        self._controller = -1  # the controller it last learned of

    async def learn(self) -> None:
        """Make the client look for another controller, once for all concurrent callers.

        By itself it does so once a second, but not while the current one is away: then it tries to connect for ten seconds without
        a pause (measured), and does nothing else.
        """
        wanted = trio.current_time()
        async with self._learning:
            if self._learned < wanted:
                self._learned = trio.current_time()
                # A cancelled caller does not wait for the thread, which changes nothing that others use.
                await trio.to_thread.run_sync(self._find_controller, limiter=self._thread, abandon_on_cancel=True)

    def _find_controller(self) -> None:
        listing = None
        for _ in range(CONTROLLERS):
            if self.closed:
                return
            with suppress(KafkaException):  # the broker hangs, or none answers: the next attempt will show
                # Not a listing of all topics: the client would keep refreshing them every second (a tenth of a core with 6,000).
                listing = self.client.list_topics(PING_TOPIC, timeout=self._timeouts.again_seconds)
            if listing is not None and (listing.controller_id != self._controller or len(listing.brokers) == 1):
                self._controller = listing.controller_id
                return


def _untold(answers: Mapping[K, T | KafkaError]) -> int:
    return sum(isinstance(answer, KafkaError) and unreachable(answer) for answer in answers.values())
