"""Checks that clients got what they were owed: all of it, in order, once, and nothing else. Deliberately without our code.

What was produced goes into a `Ledger`, what one client recorded over all of its connections into a `Journal`. Messages are
identified by unique numbers. Gaps in the offsets (transactions, compaction) are not losses; deleted records are not, either, if the
client was notified of exactly those.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SHOWN = 12  # ranges of offsets, of faults


class Lane(NamedTuple):
    """A partition of one topic; a recreated topic has other lanes.

    Attributes:
        chat: the topic without its prefix.
        partition: its number.
        topic: the identity of the topic; "" where brokers have none.
    """

    chat: str
    partition: int
    topic: str = ""

    def __str__(self) -> str:
        return f"{self.chat}/{self.partition}" + (f" of {self.topic}" if self.topic else "")


class Kind(StrEnum):
    """The kinds of faults."""

    LOST = "lost"  # it was owed, never came, and neither did anything after it, though the client waited
    LATE = "late"  # likewise, but the client was stopped while messages came: whether this one would have come nobody knows
    SKIPPED = "skipped"  # it was owed and never came, though later ones did
    OUT_OF_ORDER = "out of order"  # it came after one with a higher offset
    DUPLICATE = "duplicate"  # it came again
    INCONSISTENT = "inconsistent"  # another message is at that offset
    ABORTED_READ = "aborted read"  # its transaction was aborted
    STRAY = "stray"  # it exists, but was not owed: another chat's, outside of what was followed, or filtered; or it does not exist
    FALSE_GAP = "false gap"  # the client was told that it is gone, which it is not
    WRONG_GAP = "wrong gap"  # what the client was told is not where it stood, or goes on


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong, and where."""

    kind: Kind
    client: str
    lane: Lane
    offsets: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.client}: {self.kind} in {self.lane}: {_shown(self.offsets)}"


class Record(NamedTuple):
    """What was produced.

    Attributes:
        number: tells it apart from all others.
        committed: False: its transaction was aborted.
        tag: the message's.
        sender: the message's.
    """

    number: int
    committed: bool = True
    tag: str | None = None
    sender: str = "alice"


class Ledger:
    """The records that all replicas acknowledged, and what happened to them."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, dict[int, Record]] = defaultdict(dict)
        self.compacted: dict[Lane, set[int]] = defaultdict(set)  # may be gone, or have been read before
        self._trimmed: dict[Lane, int] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._places: dict[int, tuple[Lane, int]] = {}

    def produced(self, lane: Lane, offset: int, record: Record) -> None:
        """Note the place of a record."""
        if offset in self.lanes[lane] or record.number in self._places:
            raise ValueError(f"{lane} offset {offset}, number {record.number}: one of them is taken")
        self.lanes[lane][offset] = record
        self._places[record.number] = lane, offset

    def trimmed(self, lane: Lane, before: int) -> None:
        """Note that what lies below an offset was deleted, so a client may be told of a gap there."""
        self._trimmed[lane] = max(before, self._trimmed.get(lane, 0))

    def deleted(self, chat: str, topic: str) -> None:
        """Note that a topic was deleted, so a client may be told that another one has its name now."""
        self._deleted.add((chat, topic))

    def is_gone(self, lane: Lane, offset: int) -> bool:
        """Whether it was deleted, alone or with its topic."""
        return self.is_deleted(lane) or offset < self._trimmed.get(lane, 0)

    def is_deleted(self, lane: Lane) -> bool:
        """Whether its topic was deleted."""
        return (lane.chat, lane.topic) in self._deleted

    def place(self, number: int) -> tuple[Lane, int] | None:
        """Return where a number was produced."""
        return self._places.get(number)


class Gap(NamedTuple):
    """A gap notice, and how much of the lane the client had recorded by then."""

    first_lost: int
    first_left: int
    cause: str
    had: dict[Lane, int]


class Owed(NamedTuple):
    """Offsets that must come, or may come.

    Attributes:
        first: the first of them.
        end: the first that is none of them; None: no end.
        passes: whether the client's filter lets a record through.
    """

    first: int
    end: int | None
    passes: Callable[[Record], bool]

    def has(self, offset: int, record: Record) -> bool:
        """Whether a record is one of them."""
        return self.first <= offset and (self.end is None or offset < self.end) and self.passes(record)


def everything(_: Record) -> bool:
    """Let all records through: no filter."""
    return True


class Recorded:
    """What a client recorded of a lane, in the order in which it came. Two numbers a message: there are millions."""

    __slots__ = ("numbers", "offsets")

    def __init__(self) -> None:
        self.offsets = array("q")
        self.numbers = array("q")


@dataclass
class Journal:
    """What one client is owed, and what it recorded.

    Attributes:
        client: its name in faults.
        owed: a lane -> what has to come.
        allowed: a lane -> what may come beside.
        recorded: a lane -> what came.
        gaps: chat and partition -> the gaps that it was told of.
        stopped_early: it was stopped while messages still came.
    """

    client: str
    owed: dict[Lane, list[Owed]] = field(default_factory=lambda: defaultdict(list))
    allowed: dict[Lane, list[Owed]] = field(default_factory=lambda: defaultdict(list))
    recorded: dict[Lane, Recorded] = field(default_factory=lambda: defaultdict(Recorded))
    gaps: dict[tuple[str, int], list[Gap]] = field(default_factory=lambda: defaultdict(list))
    stopped_early: bool = False

    def owe(self, lane: Lane, first: int, end: int | None = None, *, passes: Callable[[Record], bool] = everything) -> None:
        """Note that the messages at `[first, end)` have to come; None: all from `first` on."""
        self.owed[lane].append(Owed(first, end, passes))

    def allow(self, lane: Lane, first: int, end: int | None = None, *, passes: Callable[[Record], bool] = everything) -> None:
        """Note that those at `[first, end)` may come: they were under way when the client came or went."""
        self.allowed[lane].append(Owed(first, end, passes))

    def received(self, lane: Lane, offset: int, number: int) -> None:
        """Note that a message came."""
        recorded = self.recorded[lane]
        recorded.offsets.append(offset)
        recorded.numbers.append(number)

    def told_gap(self, chat: str, partition: int, first_lost: int, first_left: int, cause: str) -> None:
        """Note that the client was told of a gap."""
        had = {lane: len(recorded.offsets) for lane, recorded in self.recorded.items() if (lane.chat, lane.partition) == (chat, partition)}
        self.gaps[chat, partition].append(Gap(first_lost, first_left, cause, had))


def check(ledger: Ledger, journals: Iterable[Journal]) -> list[Fault]:
    """Return all that is wrong."""
    expectations: dict[object, tuple[array[int], array[int]]] = {}
    faults: list[Fault] = []
    for journal in journals:
        for lane in sorted({*journal.owed, *journal.recorded}):
            if not (journal.gaps.get((lane.chat, lane.partition)) or _as_expected(ledger, journal, lane, expectations)):
                faults += _faults(ledger, journal, lane)
            elif journal.gaps.get((lane.chat, lane.partition)):
                faults += [*_faults(ledger, journal, lane), *_gap_faults(ledger, journal, lane)]
    return faults


def assert_nothing_wrong(ledger: Ledger, journals: Iterable[Journal]) -> None:
    """Raise an `AssertionError` that names the faults, if there are any."""
    faults = check(ledger, journals)
    if faults:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(fault.kind.value for fault in faults).items())
        more = f"\n… and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise AssertionError(f"{kinds}:\n" + "\n".join(map(str, faults[:SHOWN])) + more)


def _as_expected(ledger: Ledger, journal: Journal, lane: Lane, expectations: dict[object, tuple[array[int], array[int]]]) -> bool:
    """Whether exactly what is owed came. Many clients are owed the same, and machine words compare quickly."""
    key = (lane, tuple(journal.owed[lane]))
    expected = expectations.get(key)
    if expected is None:
        due = sorted(_due(ledger, journal, lane))
        expected = expectations[key] = array("q", due), array("q", [ledger.lanes[lane][offset].number for offset in due])
    recorded = journal.recorded[lane]
    return recorded.offsets == expected[0] and recorded.numbers == expected[1]


def _due(ledger: Ledger, journal: Journal, lane: Lane) -> Iterator[int]:
    for offset, record in ledger.lanes.get(lane, {}).items():
        if record.committed and _has(journal.owed[lane], offset, record):
            yield offset


def _faults(ledger: Ledger, journal: Journal, lane: Lane) -> list[Fault]:
    """Name what is wrong with what came of a lane, and what did not."""
    found: dict[Kind, list[int]] = defaultdict(list)
    seen: set[int] = set()
    highest = -1
    early = _read_before_the_change_was_seen(ledger, journal, lane)
    recorded = journal.recorded[lane]
    for at, (offset, number) in enumerate(zip(recorded.offsets, recorded.numbers, strict=True)):
        if at in early:
            continue
        kind = _kind(ledger, journal, lane, offset, number)
        if kind is not None:
            found[kind].append(offset)
        if offset in seen:
            found[Kind.DUPLICATE].append(offset)
        elif offset < highest:
            found[Kind.OUT_OF_ORDER].append(offset)
        seen.add(offset)
        highest = max(highest, offset)
    after_all = Kind.LATE if journal.stopped_early else Kind.LOST
    for offset in _due(ledger, journal, lane):
        if offset not in seen and offset not in ledger.compacted[lane] and not _excused(ledger, journal, lane, offset):
            found[Kind.SKIPPED if offset < highest else after_all].append(offset)
    return [Fault(kind, journal.client, lane, tuple(offsets)) for kind, offsets in found.items()]


def _kind(ledger: Ledger, journal: Journal, lane: Lane, offset: int, number: int) -> Kind | None:
    """Return what is wrong with a single message; None: nothing."""
    record = ledger.lanes.get(lane, {}).get(offset)
    if record is None or record.number != number:
        place = ledger.place(number)
        if place is not None and not ledger.lanes[place[0]][place[1]].committed:
            return Kind.ABORTED_READ
        return Kind.STRAY if record is None and place is None else Kind.INCONSISTENT
    if not record.committed:
        return Kind.ABORTED_READ
    return None if _has([*journal.owed[lane], *journal.allowed[lane]], offset, record) else Kind.STRAY


def _excused(ledger: Ledger, journal: Journal, lane: Lane, offset: int) -> bool:
    """Whether it is gone, and the client was told so."""
    return ledger.is_gone(lane, offset) and any(
        gap.first_lost <= offset and (gap.cause == "recreated" if ledger.is_deleted(lane) else offset < gap.first_left)
        for gap in journal.gaps[lane.chat, lane.partition]
    )


def _gap_faults(ledger: Ledger, journal: Journal, lane: Lane) -> list[Fault]:
    """Name gaps of which a client was told, and that are none, or not where it stood."""
    faults = []
    due = sorted(_due(ledger, journal, lane))
    offsets = journal.recorded[lane].offsets
    for gap in journal.gaps[lane.chat, lane.partition]:
        had, then = offsets[: gap.had.get(lane, 0)], offsets[gap.had.get(lane, 0) :]
        if gap.cause != "retention" or ledger.is_deleted(lane):
            continue  # `_excused` asks whether the topic was deleted
        there = [at for at in due[bisect_left(due, gap.first_lost) : bisect_left(due, gap.first_left)] if not ledger.is_gone(lane, at)]
        if there:
            faults.append(Fault(Kind.FALSE_GAP, journal.client, lane, tuple(there)))
        wrong = [at for at in had if at >= gap.first_lost] + [at for at in then if at < gap.first_left]
        if wrong:
            faults.append(Fault(Kind.WRONG_GAP, journal.client, lane, tuple(wrong)))
    return faults


def _read_before_the_change_was_seen(ledger: Ledger, journal: Journal, lane: Lane) -> set[int]:
    """Return which of the recorded messages are those of a recreated topic that came as the old one's.

    No broker reports that change, so it is possible until it is noticed; then the client is notified that everything starts over.
    """
    changes = [gap.had.get(lane, 0) for gap in journal.gaps[lane.chat, lane.partition] if gap.cause == "recreated"]
    if not (changes and ledger.is_deleted(lane)):
        return set()
    recorded = journal.recorded[lane]
    early = set()
    for at in range(max(changes)):
        place = ledger.place(recorded.numbers[at])
        if place is not None:
            found, offset = place
            if (
                found.topic != lane.topic
                and (found.chat, found.partition) == (lane.chat, lane.partition)
                and offset == recorded.offsets[at]
            ):
                early.add(at)
    return early


def _has(ranges: Iterable[Owed], offset: int, record: Record) -> bool:
    return any(owed.has(offset, record) for owed in ranges)


def _shown(offsets: Iterable[int]) -> str:
    """Return offsets as ranges."""
    ranges: list[list[int]] = []
    for offset in sorted(offsets):
        if ranges and ranges[-1][1] >= offset - 1:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:SHOWN])
    return f"offset{'' if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else 's'} {shown}" + (", …" if len(ranges) > SHOWN else "")
