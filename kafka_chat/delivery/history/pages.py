"""Pages of one chat's past: a piece of all its partitions, in the order of time.

A page is read as everything else is: a reader joins the audience for as long as a request takes, so the Tail follows its chat and
the logs give it positions, what memory has, pages of the past, and news. It is no client: nothing is ever offered to it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from ...chat.loss_cause import LossCause
from ...chat.resume_cursor import NO_EPOCH, OF_A_PAGE, head_of_cursor, text_of, topic_entry
from ...errors import BrokerError, BrokerUnreachable, NotFound
from ..audience.offset_queries import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from ..audience.starts import BEYOND_SECONDS, EARLIEST, LATEST, Earliest, Latest, Rewind, Since
from ..log.merge import BackwardScan, ForwardScan, PartitionScan, merge_by_time
from ..records.formats import Format, View
from ..writes.deadlines import answer_due
from .reader import HistoryReader, LogSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import ResumeCursor
    from ...telemetry.metrics import Telemetry
    from ..log.memory import Memory
    from ..log.page_reads import PageReads
    from ..log.partition_log import PartitionLog
    from ..ports import Lookup
    from ..records.batch import HistoryMessage
    from ..session.context import SessionContext
    from ..session.notices import Gap

PAGE_BYTES = 1 << 20  # of messages; the one that reaches it is the last
START_SECONDS = 2.0  # for a broker to tell whether there is such a topic, and where a page begins
LOOK_SECONDS = 0.5
COMPACTED_SECONDS = 60.0  # for which it is remembered whether a topic is compacted, …
COMPACTED_TOPICS = 1000  # … of so many

_WITHOUT_END = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """What a page is to have.

    Attributes:
        chat: whose.
        cursor: where it begins.
        start: where it begins without one; None: not said.
        rewind: begin so many messages before the end, where neither says; 0: no.
        until_ms: nothing of this time or later, Unix, in milliseconds.
        tags: only messages with one of these, or with none.
        senders: only messages from one of these.
        limit: how many messages.
        backward: those before the beginning, not those after it.
        wait_seconds: how long to wait for news where a forward page would be empty.
    """

    chat: str
    cursor: ResumeCursor | None = None
    start: Latest | Earliest | Since | None = None
    rewind: int = 0
    until_ms: int | None = None
    tags: frozenset[str] | None = None
    senders: frozenset[str] | None = None
    limit: int = 100
    backward: bool = False
    wait_seconds: float = 0.0

    @property
    def begin(self) -> Latest | Earliest | Since | Rewind:
        """Where it begins without a cursor."""
        if self.start is not None:
            return self.start
        if self.rewind:
            return Rewind(self.rewind)
        return LATEST if self.backward else EARLIEST

    @property
    def last_before_it(self) -> PageQuery:
        """What finds its beginning where that is so many messages before the end."""
        return replace(self, backward=True, until_ms=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        messages: JSON, in the form of v1, oldest first.
        gaps: what was due and is gone.
        next: the cursor after it.
        prev: the cursor before it.
        end: nothing more is there now in its direction.
        closed: it stays the same for as long as its messages are there.
        compacted: compaction may take messages out of its middle.
    """

    messages: Sequence[bytes]
    gaps: Sequence[Gap]
    next: str
    prev: str
    end: bool
    closed: bool
    compacted: bool


class History:
    """Makes pages.

    Args:
        context: the service.
        lookup: asks what only pages want to know.
        page_reads: reads what memory does not have.
        memory: where what is read is counted.
        telemetry: the service's.
    """

    def __init__(self, context: SessionContext, *, lookup: Lookup, page_reads: PageReads, memory: Memory, telemetry: Telemetry) -> None:
        self._context = context
        self._lookup = lookup
        self._page_reads = page_reads
        self._memory = memory
        self._telemetry = telemetry
        self._readers: set[HistoryReader] = set()
        self._draining = False
        # One of those that wait for news merges at a time: the next one finds what it has merged. Others have their turn between.
        self._merging = trio.Lock()
        self._merged: tuple[object, list[HistoryMessage], Sequence[PartitionScan]] | None = None  # of which readers, and what
        self._compacted: dict[str, tuple[float, bool]] = {}  # topic -> until when it is remembered, and what

    def drain(self) -> None:
        """Let nobody wait for news any more."""
        self._draining = True
        for reader in self._readers:
            reader.finish()

    async def page(self, query: PageQuery, *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> Page:
        """Return a page.

        Args:
            query: what it is to have.
            waiting: entered for as long as it waits for news, which is when its client's end may be its end, too.

        Raises:
            NotFound: the chat has no topic.
            BrokerError: brokers do not answer, or the topic is deleted meanwhile.
        """
        context, cursor = self._context, query.cursor
        if cursor is not None and not cursor.is_of(context.cluster()):
            cursor = None
        reader = HistoryReader(
            query.chat,
            query.begin,
            cursor,
            context.names,
            view=View(format=Format.V1, tags=query.tags, senders=query.senders),
            page_reads=self._page_reads,
        )
        self._readers.add(reader)
        try:
            with context.audience.joined(reader, known=True):
                return await self._read(query, reader, waiting)
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self._merged = None

    async def _read(self, query: PageQuery, reader: HistoryReader, waiting: Callable[[], AbstractContextManager[None]]) -> Page:
        doing = f"reading the history of {query.chat}"
        with answer_due(doing):
            logs = await self._logs(query, reader, doing)
            begins = await self._begins(query, reader, logs)
        await self._wait_for_end(reader, logs, begins)
        with answer_due(doing):
            firsts = await self._offsets_at(logs, EARLIEST_TIMESTAMP) if query.backward else {}
            ends = await self._ends(reader, logs)
            if query.backward:
                begins = {key: min(position, ends[key]) for key, position in begins.items()}
            scans = self._scans(query, logs, begins, firsts if query.backward else ends)
            found = await merge_by_time(scans, messages=query.limit, size=PAGE_BYTES)
        if not found and self._may_wait(query, reader, scans):
            with waiting(), trio.move_on_after(query.wait_seconds):
                found, scans = await self._news(query, reader, logs, scans)
            if not found and reader.follows(logs):
                scans = self._scans(query, logs, reader.positions, {log.key: log.head for log in logs})
        for log, scan in zip(logs, scans, strict=True):
            if scan.lost is not None:
                reader.on_gap(log.key, *scan.lost, LossCause.RETENTION)
        closed = self._closed(query, reader, logs, scans, found)
        before = self._cursor(query, logs, begins)
        after = self._cursor(query, logs, {log.key: scan.position for log, scan in zip(logs, scans, strict=True)})
        return Page(
            messages=[message.payload for message in (reversed(found) if query.backward else found)],
            gaps=reader.gaps,
            next=before if query.backward else after,
            prev=after if query.backward else before,
            end=all(scan.at_end for scan in scans),
            closed=closed,
            compacted=closed and await self._is_compacted(logs[0].key.topic),
        )

    async def _news(
        self, query: PageQuery, reader: HistoryReader, logs: Sequence[PartitionLog], scans: Sequence[PartitionScan]
    ) -> tuple[list[HistoryMessage], Sequence[PartitionScan]]:
        """Wait for a message after an empty page, and return what a page then has; nothing where something else ends the waiting.

        All that wait at the same place and see the same share what one of them has merged.
        """
        while reader.follows(logs) and not (reader.gaps or reader.over or self._draining):
            reader.move({log.key: scan.position for log, scan in zip(logs, scans, strict=True)})
            if all(reader.follower.cursors[log.key].position >= log.head for log in logs):
                await reader.wait_for_message()
            async with self._merging:
                if not reader.follows(logs):  # others had their turn
                    break
                positions, heads = reader.positions, {log.key: log.head for log in logs}
                alike = logs[0].key.topic_id, reader.follower.view, query.limit, positions, heads
                if self._merged is None or self._merged[0] != alike:
                    scans = self._scans(query, logs, positions, heads)
                    found = await merge_by_time([scan for scan in scans if not scan.at_end], messages=query.limit, size=PAGE_BYTES)
                    self._merged = alike, found, scans
                _, found, scans = self._merged
            if found or any(scan.lost is not None for scan in scans):
                return found, scans
        return [], scans

    async def _logs(self, query: PageQuery, reader: HistoryReader, doing: str) -> Sequence[PartitionLog]:
        """Return the logs of the chat, once it is fixed where the reader begins in them."""
        audience, topic = self._context.audience, self._context.names.topic(query.chat)
        await audience.wait_started(reader, seconds=START_SECONDS)
        if audience.has_started(reader) and not audience.logs(reader, query.chat):
            if topic not in await self._lookup.describe([topic]):
                raise NotFound(f"{query.chat} is no chat: the topic {topic} does not exist", field="chat")
            while not audience.logs(reader, query.chat):  # made a moment ago
                await reader.news()
            await audience.wait_started(reader, seconds=START_SECONDS)
        logs = audience.logs(reader, query.chat)
        if not audience.has_started(reader) or any(log.key not in reader.follower.cursors for log in logs):
            raise BrokerUnreachable(f"{doing} failed: no broker answered within {START_SECONDS:g} s")
        return logs

    async def _begins(self, query: PageQuery, reader: HistoryReader, logs: Sequence[PartitionLog]) -> dict[PartitionKey, int]:
        """Return where the page begins in each partition."""
        begins = {log.key: reader.follower.cursors[log.key].position for log in logs}
        if not isinstance(query.begin, (Latest, Rewind)):
            return begins
        loose = [log for log in logs if reader.resumed is None or reader.resumed.offset(log.key) is None]
        if loose:
            # What was acknowledged before the request is there, whether or not it has come to the head of its log.
            begins |= await self._wait_for_heads(reader, loose, await self._offsets_at(loose, LATEST_TIMESTAMP))
        if loose and isinstance(query.begin, Rewind):
            scans = self._scans(query.last_before_it, loose, begins, await self._offsets_at(loose, EARLIEST_TIMESTAMP))
            await merge_by_time(scans, messages=query.begin.messages, size=_WITHOUT_END)
            begins |= {log.key: scan.position for log, scan in zip(loose, scans, strict=True)}
        return begins

    async def _wait_for_end(self, reader: HistoryReader, logs: Sequence[PartitionLog], begins: dict[PartitionKey, int]) -> None:
        """See to it that no partition ends before the page begins: a broker may be a moment behind, or have lost its end."""
        give_up_at = trio.current_time() + BEYOND_SECONDS
        while beyond := [log for log in logs if begins[log.key] > log.head]:
            with answer_due("asking where the log ends"):
                ends = await self._offsets_at(beyond, LATEST_TIMESTAMP)
            beyond = [log for log in beyond if ends[log.key] < begins[log.key]]
            if not beyond:
                return
            if trio.current_time() >= give_up_at:
                for log in beyond:
                    reader.on_gap(log.key, begins[log.key], ends[log.key], LossCause.TRUNCATED)
                    begins[log.key] = ends[log.key]
                return
            with trio.move_on_after(LOOK_SECONDS):
                await reader.news()

    async def _ends(self, reader: HistoryReader, logs: Sequence[PartitionLog]) -> Mapping[PartitionKey, int]:
        """Return where each partition ends now: what has been acknowledged before the request is below."""
        return await self._wait_for_heads(reader, logs, await self._offsets_at(logs, LATEST_TIMESTAMP))

    async def _wait_for_heads(
        self, reader: HistoryReader, logs: Sequence[PartitionLog], ends: Mapping[PartitionKey, int]
    ) -> Mapping[PartitionKey, int]:
        """Wait until the Tail has come that far; return how far that is."""
        while any(log.head < ends[log.key] for log in logs):
            await reader.news()
        return ends

    async def _offsets_at(self, logs: Sequence[PartitionLog], time_ms: int) -> Mapping[PartitionKey, int]:
        """Return the offsets of a time, `EARLIEST_TIMESTAMP` or `LATEST_TIMESTAMP`, as brokers tell them."""
        async with self._context.offsets.ask([log.key for log in logs], time_ms) as answers:
            return await answers.all()

    def _scans(
        self, query: PageQuery, logs: Sequence[PartitionLog], begins: Mapping[PartitionKey, int], bounds: Mapping[PartitionKey, int]
    ) -> Sequence[PartitionScan]:
        view = View(format=Format.V1, tags=query.tags, senders=query.senders)
        scans: list[PartitionScan] = []
        for log in logs:
            source = LogSource(log, view, self._page_reads, self._memory, before_ms=query.until_ms)
            begin, bound = begins[log.key], bounds[log.key]
            most = max(query.limit, query.rewind)
            if query.backward:
                scans.append(BackwardScan(log.key.partition, source, begin, min(begin, bound), most=most))
            else:
                scans.append(ForwardScan(log.key.partition, source, begin, max(begin, bound), most=most))
        return scans

    def _may_wait(self, query: PageQuery, reader: HistoryReader, scans: Sequence[PartitionScan]) -> bool:
        """Whether an empty page may wait for news."""
        if query.backward or query.until_ms is not None or not query.wait_seconds:
            return False
        return not reader.gaps and all(scan.at_end and scan.lost is None for scan in scans)

    def _closed(
        self,
        query: PageQuery,
        reader: HistoryReader,
        logs: Sequence[PartitionLog],
        scans: Sequence[PartitionScan],
        found: Sequence[HistoryMessage],
    ) -> bool:
        """Whether the same request has the same page for its answer for as long as its messages are there.

        A late record may be of any time, so nothing may come between: the page is full, and in each partition it is known what comes
        after it. Offsets alone are where a page begins that stays the same, and only of the topic that they were made of.
        """
        full = len(found) == query.limit or sum(len(message.payload) for message in found) >= PAGE_BYTES
        if not full or query.backward or query.until_ms is not None or reader.gaps or not all(scan.holds for scan in scans):
            return False
        cluster = self._context.cluster()
        return cluster is not None and query.cursor is not None and query.cursor.cluster == cluster and reader.resumes_wholly(logs)

    def _cursor(self, query: PageQuery, logs: Sequence[PartitionLog], positions: Mapping[PartitionKey, int]) -> str:
        by_partition = {key.partition: position for key, position in positions.items()}
        key = logs[0].key
        # How far subscriptions were known is as it was: two answers to the same request may not differ in that.
        head = head_of_cursor(self._context.cluster(), OF_A_PAGE if query.cursor is None else query.cursor.subscriptions)
        epochs = {log.key.partition: log.epochs.before(positions[log.key]) for log in logs}
        numbers = range(max(by_partition) + 1)
        places = [by_partition.get(number) for number in numbers], [epochs.get(number, NO_EPOCH) for number in numbers]
        return text_of(head + topic_entry(key.topic, key.topic_id, *places))

    async def _is_compacted(self, topic: str) -> bool:
        """Return whether records may vanish out of the middle of a topic; where nobody tells, they may."""
        remembered_until, compacted = self._compacted.get(topic, (0.0, True))
        if trio.current_time() < remembered_until:
            return compacted
        try:
            compacted = await self._lookup.compacted(topic)
        except BrokerError:
            return True
        if len(self._compacted) >= COMPACTED_TOPICS:
            self._compacted.clear()
        self._compacted[topic] = trio.current_time() + COMPACTED_SECONDS, compacted
        return compacted
