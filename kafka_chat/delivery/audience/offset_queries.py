"""Offsets of times, asked of the brokers for all sessions that want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...errors import BrokerError
from ...loop_sharing import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...chat.partition_key import PartitionKey
    from ..ports import Lookup

# Times that are none; Kafka has the same ones.
EARLIEST_TIMESTAMP = -2  # the first offset that is left
LATEST_TIMESTAMP = -1  # the last stable offset


class Question:
    """A question that waits for its answer, for as long as its asker wants to know: an asker that goes withdraws it."""

    __slots__ = ("_queries", "begin", "key", "time_ms")

    def __init__(self, queries: OffsetQueries, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> None:
        self.key = key
        self.time_ms = time_ms
        self.begin = begin
        self._queries = queries

    @property
    def open(self) -> bool:
        """Whether it still waits."""
        return self._queries.holds(self)

    def withdraw(self) -> None:
        """No longer wait; `begin` is not called any more. Idempotent, and no error once it is answered."""
        self._queries.drop(self)


_Waiting = dict["PartitionKey", dict[Question, None]]


class OffsetQueries:
    """Offsets of times, and first offsets, asked of the brokers in a task of the service, as long as it takes them to answer."""

    AGAIN_SECONDS = 1.0

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._queries: dict[int, _Waiting] = {}
        self._in_flight: _Waiting = {}  # what the request under way is for
        self._news = trio.Event()

    def __len__(self) -> int:
        """How many questions wait."""
        return sum(len(questions) for waiting in (self._in_flight, *self._queries.values()) for questions in waiting.values())

    def ask(self, key: PartitionKey, time_ms: int, begin: Callable[[int], None]) -> Question:
        """Have `begin(offset)` called once the offset of that time, `EARLIEST_TIMESTAMP` or `LATEST_TIMESTAMP` is known.

        What is wanted while a request is under way is one request afterwards: five thousand sessions ask as one.
        """
        question = Question(self, key, time_ms, begin)
        self._queries.setdefault(time_ms, {}).setdefault(key, {})[question] = None
        self._news.set()
        return question

    def holds(self, question: Question) -> bool:
        """Whether a question waits for its answer."""
        return any(question in waiting.get(question.key, ()) for waiting in (self._in_flight, self._queries.get(question.time_ms, {})))

    def drop(self, question: Question) -> None:
        """Forget a question; see `Question.withdraw`."""
        for waiting in (self._in_flight, self._queries.get(question.time_ms, {})):
            questions = waiting.get(question.key, {})
            questions.pop(question, None)
            if not questions:
                waiting.pop(question.key, None)

    def forget(self, key: PartitionKey) -> None:
        """No longer ask for a partition that nobody follows."""
        for waiting in (self._in_flight, *self._queries.values()):
            waiting.pop(key, None)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            for time_ms in list(self._queries):
                if self._queries[time_ms]:
                    await self._resolve(time_ms)
            self._queries = {time_ms: waiting for time_ms, waiting in self._queries.items() if waiting}
            if self._queries and not self._news.is_set():
                self._news.set()
                await trio.sleep(self.AGAIN_SECONDS)

    async def _resolve(self, time_ms: int) -> None:
        self._in_flight, self._queries[time_ms] = self._queries[time_ms], {}
        try:
            offsets = await self._query(tuple(self._in_flight), time_ms)
        except BrokerError:
            offsets = {}  # asked again; that the brokers are away is told by the Tail
        await self._answer(offsets)
        unanswered, self._in_flight = self._in_flight, {}
        for key, questions in unanswered.items():
            self._queries[time_ms].setdefault(key, {}).update(questions)

    async def _answer(self, offsets: Mapping[PartitionKey, int]) -> None:
        """Answer what is in flight. Meanwhile a question may be withdrawn and a partition forgotten: both are then no longer there."""
        turn = Turn()
        for key, offset in offsets.items():
            for question in tuple(self._in_flight.get(key, ())):
                if question in self._in_flight.get(key, ()):
                    self.drop(question)
                    question.begin(offset)
                await turn.share()

    async def _query(self, keys: Sequence[PartitionKey], time_ms: int) -> Mapping[PartitionKey, int]:
        if time_ms == EARLIEST_TIMESTAMP:
            return await self._lookup.first_offsets(keys)
        if time_ms == LATEST_TIMESTAMP:
            return await self._lookup.last_stable_offsets(keys)
        return await self._lookup.offsets_at(keys, time_ms)
