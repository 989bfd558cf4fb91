"""Asks the brokers for the offsets of times, for all sessions together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...changes import Changes
from ...errors import BrokerError
from ...loop_sharing import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from ...chat.partition_key import PartitionKey
    from ..ports import Lookup

# Special values in place of a time, the same as Kafka's.
EARLIEST_TIMESTAMP = -2  # the first offset that still exists
LATEST_TIMESTAMP = -1  # the last stable offset
STILL_THERE = -99  # ours: 0 once a broker says that the partition's topic is still this very one; no answer while it is not
_EPOCH_ENDS = -100  # this and lower values are ours: each stands for the end of a leader epoch


def end_of_epoch(epoch: int) -> int:
    """Return the value that stands for the end of a leader epoch (`Lookup.epoch_ends`)."""
    return _EPOCH_ENDS - epoch


class Question:
    """A pending question; withdraw it if the answer is no longer needed."""

    __slots__ = ("_queries", "begin", "key", "time_ms")

    def __init__(self, queries: OffsetQueries, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> None:
        self.key = key
        self.time_ms = time_ms
        self.begin = begin
        self._queries = queries

    @property
    def open(self) -> bool:
        """Whether it is still pending."""
        return self._queries.holds(self)

    def withdraw(self) -> None:
        """Withdraw it, so that `begin` is not called. Idempotent, and harmless after the answer."""
        self._queries.drop(self)


class Answers:
    """The answers for the partitions of one `OffsetQueries.ask`.

    Attributes:
        told: partition -> offset, as far as known.
    """

    def __init__(self, keys: Collection[PartitionKey]) -> None:
        self.told: dict[PartitionKey, int] = {}
        self._left = set(keys)
        self._all = trio.Event()
        if not self._left:
            self._all.set()

    async def all(self) -> Mapping[PartitionKey, int]:
        """Wait for the offsets of all partitions, however long the brokers are away, and return them."""
        await self._all.wait()
        return self.told

    def take(self, key: PartitionKey, offset: int) -> None:
        """Take the answer of one partition."""
        self.told[key] = offset
        self._left.discard(key)
        if not self._left:
            self._all.set()


_Waiting = dict["PartitionKey", dict[int, dict[Question, None]]]  # partition -> time -> the pending questions


class OffsetQueries:
    """Asks the brokers for offsets of times and for first offsets, in tasks of the service, until they answer.

    There is one request per leader, so a leader that hangs does not delay questions to others. A request covers all questions that
    are pending when it begins. Later questions about the same partitions wait for the next request, because an end that was
    requested earlier may be too low. So the questions of five thousand sessions share a request.

    Args:
        lookup: asks the brokers.
    """

    AGAIN_SECONDS = 1.0  # pause after a request that left questions unanswered
    AT_A_TIME = 8  # concurrent requests per leader, each for one time; an answer takes milliseconds

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._fresh: _Waiting = {}  # to ask at once
        self._in_flight: _Waiting = {}  # covered by current requests
        self._held: _Waiting = {}  # to ask once the current request for the same partition and time is over
        self._limiters: dict[int, trio.CapacityLimiter] = {}  # by leader
        self._news = Changes()

    def __len__(self) -> int:
        """How many questions are pending."""
        waiting = (self._fresh, self._in_flight, self._held)
        return sum(len(questions) for by_key in waiting for by_time in by_key.values() for questions in by_time.values())

    @asynccontextmanager
    async def ask(self, keys: Collection[PartitionKey], time_ms: int) -> AsyncIterator[Answers]:
        """Ask for the offsets of a time while the block runs; unanswered questions are withdrawn at its end.

        Args:
            keys: which partitions.
            time_ms: Unix, in milliseconds, or a value from above.
        """
        answers = Answers(keys)
        questions = [self.put(key, time_ms, partial(answers.take, key)) for key in keys]
        try:
            yield answers
        finally:
            for question in questions:
                question.withdraw()

    def put(self, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> Question:
        """Call `begin(offset)` once the offset of a time is known. For callers without a task, which withdraw the question themselves."""
        question = Question(self, key, time_ms, begin)
        if time_ms in self._in_flight.get(key, ()):
            self._held.setdefault(key, {}).setdefault(time_ms, {})[question] = None
        else:
            self._fresh.setdefault(key, {}).setdefault(time_ms, {})[question] = None
            self._news.note()
        return question

    def holds(self, question: Question) -> bool:
        """Whether a question is pending."""
        return any(question in self._of(waiting, question) for waiting in (self._fresh, self._in_flight, self._held))

    def drop(self, question: Question) -> None:
        """Forget a question; called by its `withdraw`."""
        for waiting in (self._fresh, self._in_flight, self._held):
            self._of(waiting, question).pop(question, None)

    def forget(self, key: PartitionKey) -> None:
        """Stop asking about a partition that is no longer followed."""
        for waiting in (self._fresh, self._in_flight, self._held):
            for questions in waiting.get(key, {}).values():
                questions.clear()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with trio.open_nursery() as requests:
            while True:
                version = self._news.version
                for time_ms, leader, keys in self._requests():
                    requests.start_soon(self._resolve, time_ms, leader, keys)
                await self._news.wait_beyond(version)

    def _requests(self) -> list[tuple[int, int, Sequence[PartitionKey]]]:
        """Take the fresh questions as requests: a time, a leader, and its partitions."""
        by_time: dict[int, list[PartitionKey]] = {}
        for key, times in self._fresh.items():
            for time_ms, questions in times.items():
                if questions:
                    by_time.setdefault(time_ms, []).append(key)
                    self._in_flight.setdefault(key, {})[time_ms] = questions
        self._fresh = {}
        return [(time_ms, leader, led) for time_ms, keys in by_time.items() for leader, led in self._lookup.by_leader(keys).items()]

    async def _resolve(self, time_ms: int, leader: int, keys: Sequence[PartitionKey]) -> None:
        """Ask about partitions of one leader, and answer the questions; unanswered ones are repeated a second later."""
        async with self._limiters.setdefault(leader, trio.CapacityLimiter(self.AT_A_TIME)):
            wanted = [key for key in keys if self._in_flight[key][time_ms]]
            try:
                offsets = await self._query(wanted, time_ms) if wanted else {}
            except BrokerError:
                offsets = {}  # asked again; the Tail reports that the brokers are away
            await self._answer(time_ms, offsets)
        if any(self._in_flight[key][time_ms] for key in keys):
            await trio.sleep(self.AGAIN_SECONDS)
        for key in keys:
            self._end_flight(key, time_ms)

    async def _answer(self, time_ms: int, offsets: Mapping[PartitionKey, int]) -> None:
        """Answer the questions in flight. Meanwhile questions may be withdrawn and partitions forgotten."""
        turn = Turn()
        for key, offset in offsets.items():
            questions = self._in_flight[key][time_ms]
            for question in tuple(questions):
                if question in questions:
                    del questions[question]
                    question.begin(offset)
                await turn.share()

    def _end_flight(self, key: PartitionKey, time_ms: int) -> None:
        """Queue again what a request left unanswered, together with the questions that came meanwhile."""
        waiting: dict[Question, None] = {}
        for by_key in (self._in_flight, self._held):
            by_time = by_key.get(key, {})
            waiting |= by_time.pop(time_ms, {})
            if not by_time:
                by_key.pop(key, None)
        if waiting:
            self._fresh.setdefault(key, {}).setdefault(time_ms, {}).update(waiting)
            self._news.note()

    def _of(self, waiting: _Waiting, question: Question) -> dict[Question, None]:
        return waiting.get(question.key, {}).get(question.time_ms, {})

    async def _query(self, keys: Sequence[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        if time_ms == EARLIEST_TIMESTAMP:
            return await self._lookup.first_offsets(keys)
        if time_ms == LATEST_TIMESTAMP:
            return await self._lookup.last_stable_offsets(keys)
        if time_ms == STILL_THERE:
            facts = await self._lookup.describe({key.topic for key in keys})
            return {key: 0 for key in keys if key.topic in facts and facts[key.topic].topic_id == key.topic_id}
        if time_ms <= _EPOCH_ENDS:
            return await self._lookup.epoch_ends(keys, _EPOCH_ENDS - time_ms)
        return await self._lookup.offsets_at(keys, time_ms)
