"""Reads one page, step by step: its logs, its start, its end, its messages, and a wait for new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...chat.loss_cause import LossCause
from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import OF_A_PAGE, head_of_cursor, text_of, topic_entry
from ...errors import BrokerUnreachable, NotFound
from ..audience.offset_queries import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from ..audience.wanted_start import Latest, Rewind, epoch_named, offset_named, partitions_named, since_named
from ..log.last_messages import last_messages
from ..log.log_source import LogSource
from ..log.merge import BackwardScan, ForwardScan, merge_by_time
from ..writes.deadlines import answer_due
from .query import PAGE_BYTES, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ..log.merge import PartitionScan
    from ..log.partition_log import PartitionLog
    from ..ports import Lookup
    from ..records.batch import HistoryMessage
    from ..session.context import SessionContext
    from .compacted_topics import CompactedTopics
    from .query import PageQuery
    from .reader import HistoryReader
    from .shared_merge import SharedMerge


Positions = dict["PartitionKey", int]  # partition -> offset


class PageReading:
    """One request for a page, whose reader has joined the audience.

    Args:
        query: what the page should contain.
        reader: follows the chat.
        context: the parts of the service.
        lookup: asks whether the chat exists.
        shared: the merge shared with other waiting requests.
        compacted: knows which topics are compacted.
    """

    def __init__(
        self,
        query: PageQuery,
        reader: HistoryReader,
        context: SessionContext,
        *,
        lookup: Lookup,
        shared: SharedMerge,
        compacted: CompactedTopics,
    ) -> None:
        self._query = query
        self._reader = reader
        self._context = context
        self._lookup = lookup
        self._shared = shared
        self._compacted = compacted
        self._logs: Sequence[PartitionLog] = ()
        self._begins: Positions = {}
        self._scans: Sequence[PartitionScan] = ()

    async def run(self, waiting: Callable[[], AbstractContextManager[None]]) -> Page:
        """Return the page; see `History.page`."""
        doing, wait_until = f"reading the history of {self._query.chat}", trio.current_time() + self._query.wait_seconds
        await self._context.audience.wait_started(self._reader, seconds=self._lookup.timeouts.answer_seconds)
        await self._context.audience.wait_readings(self._reader)
        with answer_due(doing, self._lookup.timeouts):
            await self._find_logs(doing)
            await self._find_beginning()
        with answer_due(doing, self._lookup.timeouts):
            found = await self._merge()
        if not found and self._may_wait:
            found = await self._wait_for_news(waiting, wait_until)
        self._note_losses()
        return await self._page(found)

    # The steps

    async def _find_logs(self, doing: str) -> None:
        """Find the logs of the chat, once the reader's start in them is fixed."""
        seconds = self._lookup.timeouts.answer_seconds
        audience, reader, chat = self._context.audience, self._reader, self._query.chat
        topic = self._context.names.topic(chat)
        if audience.has_started(reader) and not audience.logs(reader, chat):
            if topic not in await self._lookup.describe([topic]):
                raise NotFound(f"{chat} is not a chat: the topic {topic} does not exist", field="chat")
            while not audience.logs(reader, chat):  # just created
                await reader.news()
            await audience.wait_started(reader, seconds=seconds)
        self._logs = audience.logs(reader, chat)
        if not audience.has_started(reader) or any(log.key not in reader.follower.cursors for log in self._logs):
            raise BrokerUnreachable(f"{doing} failed: no broker answered within {seconds:g} s")

    async def _find_beginning(self) -> None:
        """Find the page's start in each partition."""
        reader, begin = self._reader, self._query.begin
        self._begins = {log.key: reader.follower.cursors[log.key].position for log in self._logs}
        if not isinstance(begin, (Latest, Rewind)):
            return
        loose = [log for log in self._logs if reader.resumed is None or reader.resumed.offset(log.key) is None]
        if loose:
            # Messages acknowledged before the request are included, even if they have not reached the head of their log.
            self._begins |= await self._wait_for_heads(loose)
        if loose and isinstance(begin, Rewind):
            ends, view = {log: self._begins[log.key] for log in loose}, reader.follower.view
            page_reads, memory = self._context.page_reads, self._context.memory
            last = await last_messages(ends, begin.messages, view=view, page_reads=page_reads, memory=memory)
            self._begins |= {log.key: position for log, position in last.items()}

    async def _merge(self) -> list[HistoryMessage]:
        """Read forward to each partition's current end, or backward to its start, until the page is full."""
        firsts = await self._offsets_at(self._logs, EARLIEST_TIMESTAMP) if self._query.backward else {}
        ends = await self._wait_for_heads(self._logs)
        if self._query.backward:
            self._begins = {key: min(position, ends[key]) for key, position in self._begins.items()}
        self._scans = self._scans_of(self._query, self._logs, self._begins, firsts if self._query.backward else ends)
        return await merge_by_time(self._scans, messages=self._query.limit, size=PAGE_BYTES)

    @property
    def _may_wait(self) -> bool:
        """Whether an empty page may wait for a new message."""
        query = self._query
        if query.backward or query.until_ms is not None or not query.wait_seconds:
            return False
        return not self._reader.gaps and all(scan.at_end and scan.lost is None for scan in self._scans)

    async def _wait_for_news(self, waiting: Callable[[], AbstractContextManager[None]], until: float) -> list[HistoryMessage]:
        """Wait for a message after an empty page, and return the page's messages then; none if something else ends the wait.

        Requests that wait at the same positions with the same view share a merge.
        """
        reader, logs = self._reader, self._logs
        with waiting(), trio.move_on_at(until):
            while reader.follows(logs) and not (reader.gaps or reader.over):
                reader.move(_positions(logs, self._scans))
                if all(reader.follower.cursors[log.key].position >= log.head for log in logs):
                    await reader.wait_for_message()
                merged = await self._shared.merge(self._alike, self._scans_to_heads, messages=self._query.limit)
                if merged is None:
                    break
                found, self._scans = merged
                if found or any(scan.lost is not None for scan in self._scans):
                    return found
        if reader.follows(logs):
            self._scans = self._scans_to_heads()
        return []

    def _note_losses(self) -> None:
        """Note the gaps that the page reports."""
        for log, scan in zip(self._logs, self._scans, strict=True):
            if scan.lost is not None:
                self._reader.on_gap(log.key, *scan.lost, LossCause.RETENTION)

    async def _page(self, found: Sequence[HistoryMessage]) -> Page:
        """Return the page with these messages."""
        backward, closed = self._query.backward, self._is_closed(found)
        before, after = self._cursor(self._begins), self._cursor(_positions(self._logs, self._scans))
        return Page(
            messages=[message.payload for message in (reversed(found) if backward else found)],
            gaps=self._reader.gaps,
            next=before if backward else after,
            prev=after if backward else before,
            end=all(scan.at_end for scan in self._scans),
            closed=closed,
            compacted=closed and await self._compacted.has(self._logs[0].key.topic),
        )

    # What the steps ask

    async def _offsets_at(self, logs: Sequence[PartitionLog], time_ms: int) -> Mapping[PartitionKey, int]:
        """Ask brokers for the offsets of a time, `EARLIEST_TIMESTAMP` or `LATEST_TIMESTAMP`."""
        async with self._context.offsets.ask([log.key for log in logs], time_ms) as answers:
            return await answers.all()

    async def _wait_for_heads(self, logs: Sequence[PartitionLog]) -> Mapping[PartitionKey, int]:
        """Return the partitions' ends once the Tail has reached them, so that messages acknowledged before the request are below."""
        ends = await self._offsets_at(logs, LATEST_TIMESTAMP)
        while any(log.head < ends[log.key] for log in logs):
            await self._reader.news()
        return ends

    def _scans_of(
        self, query: PageQuery, logs: Sequence[PartitionLog], begins: Mapping[PartitionKey, int], bounds: Mapping[PartitionKey, int]
    ) -> Sequence[PartitionScan]:
        context = self._context
        scans: list[PartitionScan] = []
        for log in logs:
            source = LogSource(log, self._reader.follower.view, context.page_reads, context.memory, before_ms=query.until_ms)
            begin, bound = begins[log.key], bounds[log.key]
            if query.backward:
                scans.append(BackwardScan(log.key.partition, source, begin, min(begin, bound), most=query.limit))
            else:
                scans.append(ForwardScan(log.key.partition, source, begin, max(begin, bound), most=query.limit))
        return scans

    def _scans_to_heads(self) -> Sequence[PartitionScan]:
        """Return scans from the reader's positions to the current heads."""
        return self._scans_of(self._query, self._logs, self._reader.positions, _heads(self._logs))

    def _alike(self) -> object | None:
        """Return a key that requests with a shared merge have in common; None if the logs have changed."""
        reader, logs = self._reader, self._logs
        if not reader.follows(logs):
            return None
        return logs[0].key.topic_id, reader.follower.view, self._query.limit, reader.positions, _heads(logs)

    @property
    def _there(self) -> int:
        """How many partitions the topic is known to have."""
        return self._context.audience.partitions_of(self._logs[0].key.topic)

    def _is_closed(self, found: Sequence[HistoryMessage]) -> bool:
        """Whether the same request gets the same page for as long as its messages exist.

        A later record may have any timestamp, so no record may fit in between: the page is full, and in each partition the
        message after it is known. Moreover, only a page that begins at offsets of this topic stays the same.
        """
        query, reader, cluster = self._query, self._reader, self._context.cluster.mark
        full = len(found) == query.limit or sum(len(message.payload) for message in found) >= PAGE_BYTES
        if self._there > len(self._logs):
            return False  # the messages of a partition without a leader belong in between
        if not full or query.backward or query.until_ms is not None or reader.gaps or not all(scan.holds for scan in self._scans):
            return False
        return cluster is not None and query.cursor is not None and query.cursor.cluster == cluster and reader.resumes_wholly(self._logs)

    def _cursor(self, positions: Mapping[PartitionKey, int]) -> str:
        """Return the cursor of these positions; a partition without a leader keeps its place in the request's cursor."""
        first, cursor, resumed = self._logs[0].key, self._query.cursor, self._reader.resumed
        # The subscriptions offset is copied, so that two answers to the same request do not differ in it.
        head = head_of_cursor(self._context.cluster.mark, OF_A_PAGE if cursor is None else cursor.subscriptions)
        logs = {log.key: log for log in self._logs}
        partitions = max(1 + max(key.partition for key in logs), partitions_named(resumed, first.topic_id), self._there)
        keys = [PartitionKey(first.topic, first.topic_id, partition) for partition in range(partitions)]
        offsets = [positions[key] if key in logs else offset_named(resumed, key) for key in keys]
        epochs = [logs[key].epochs.before(positions[key]) if key in logs else epoch_named(resumed, key) for key in keys]
        start, joined_ms = resumed or self._query.begin, self._reader.follower.joined_ms
        unknown = [
            since_named(start, key, joined_ms) if offset is None else epoch
            for key, offset, epoch in zip(keys, offsets, epochs, strict=True)
        ]
        return text_of(head + topic_entry(first.topic, first.topic_id, offsets, unknown))


def _positions(logs: Sequence[PartitionLog], scans: Sequence[PartitionScan]) -> Positions:
    """Return the positions of the scans, one per log."""
    return {log.key: scan.position for log, scan in zip(logs, scans, strict=True)}


def _heads(logs: Sequence[PartitionLog]) -> Positions:
    return {log.key: log.head for log in logs}
