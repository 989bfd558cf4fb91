"""The checker finds every injected fault, with its offsets, and none where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.checker import Fault, Journal, Kind, Lane, Ledger, Record, assert_nothing_wrong, check

LANE = Lane("global", 0, "first")
OTHER = Lane("global", 1, "first")
RECREATED = Lane("global", 0, "second")


def ledger_of(*offsets: int, lane: Lane = LANE, first_number: int = 100) -> Ledger:
    ledger = Ledger()
    for offset in offsets:
        ledger.produced(lane, offset, Record(first_number + offset))
    return ledger


def journal_of(*offsets: int, first: int = 0, end: int | None = None, first_number: int = 100) -> Journal:
    journal = Journal("bob")
    journal.owe(LANE, first, end)
    for offset in offsets:
        journal.received(LANE, offset, first_number + offset)
    return journal


def faults(ledger: Ledger, journal: Journal) -> list[tuple[Kind, tuple[int, ...]]]:
    return [(fault.kind, fault.offsets) for fault in check(ledger, [journal])]


def test_all_of_it_in_order_once_is_no_fault():
    assert faults(ledger_of(0, 1, 2), journal_of(0, 1, 2)) == []


def test_what_came_no_more_is_lost():
    assert faults(ledger_of(0, 1, 2, 3), journal_of(0, 1)) == [(Kind.LOST, (2, 3))]


def test_what_had_not_come_when_its_client_was_stopped_is_late_and_what_was_passed_over_is_not():
    journal = journal_of(0, 2)
    journal.stopped_early = True
    assert faults(ledger_of(0, 1, 2, 3, 4), journal) == [(Kind.SKIPPED, (1,)), (Kind.LATE, (3, 4))]
    with pytest.raises(AssertionError, match=r"^1 skipped, 1 late:\n"):
        assert_nothing_wrong(ledger_of(0, 1, 2, 3, 4), [journal])


def test_who_has_all_is_not_late_though_it_was_stopped():
    journal = journal_of(0, 1)
    journal.stopped_early = True
    assert faults(ledger_of(0, 1), journal) == []


def test_who_got_nothing_lost_all():
    assert faults(ledger_of(0, 1), journal_of()) == [(Kind.LOST, (0, 1))]


def test_what_is_missing_before_others_that_came_was_skipped():
    assert faults(ledger_of(0, 1, 2, 3), journal_of(0, 3)) == [(Kind.SKIPPED, (1, 2))]


def test_what_came_after_a_higher_offset_is_out_of_order():
    assert faults(ledger_of(0, 1, 2), journal_of(0, 2, 1)) == [(Kind.OUT_OF_ORDER, (1,))]


def test_what_came_again_is_a_duplicate():
    assert faults(ledger_of(0, 1, 2), journal_of(0, 1, 1, 2, 0)) == [(Kind.DUPLICATE, (1, 0))]


def test_another_message_at_an_offset_is_inconsistent():
    journal = journal_of(0)
    journal.received(LANE, 1, 102)
    assert faults(ledger_of(0, 1, 2), journal) == [(Kind.INCONSISTENT, (1,)), (Kind.LOST, (2,))]


def test_a_message_of_another_partition_is_inconsistent():
    ledger, journal = ledger_of(0), journal_of(0)
    ledger.produced(OTHER, 7, Record(1))
    journal.owe(OTHER, 8)
    journal.received(LANE, 1, 1)
    assert faults(ledger, journal) == [(Kind.INCONSISTENT, (1,))]


def test_what_was_aborted_is_an_aborted_read_and_no_loss_where_it_did_not_come():
    ledger = ledger_of(0, 3)
    ledger.produced(LANE, 1, Record(101, committed=False))
    assert faults(ledger, journal_of(0, 1, 3)) == [(Kind.ABORTED_READ, (1,))]
    assert faults(ledger, journal_of(0, 3)) == []


def test_what_was_never_produced_is_stray():
    assert faults(ledger_of(0), journal_of(0, 1)) == [(Kind.STRAY, (1,))]


def test_what_lies_outside_of_what_was_followed_is_stray():
    assert faults(ledger_of(0, 1, 2, 3), journal_of(0, 1, 2, 3, first=1, end=3)) == [(Kind.STRAY, (0, 3))]


def test_a_chat_that_nobody_asked_for_is_stray():
    ledger, journal = ledger_of(0), journal_of(0)
    stray = Lane("room", 0)
    ledger.produced(stray, 5, Record(1))
    journal.received(stray, 5, 1)
    assert check(ledger, [journal]) == [Fault(Kind.STRAY, "bob", stray, (5,))]


def test_what_the_filter_keeps_out_is_stray_where_it_came_and_no_loss_where_it_did_not():
    ledger = Ledger()
    for offset in range(4):
        ledger.produced(LANE, offset, Record(100 + offset, tag="even" if offset % 2 == 0 else "odd"))
    quiet, loud = Journal("bob"), Journal("bob")
    for journal, offsets in ((quiet, (0, 2)), (loud, (0, 1, 2))):
        journal.owe(LANE, 0, passes=lambda record: record.tag == "even")
        for offset in offsets:
            journal.received(LANE, offset, 100 + offset)
    assert faults(ledger, quiet) == []
    assert faults(ledger, loud) == [(Kind.STRAY, (1,))]


def test_what_was_under_way_may_come_or_not():
    for came in ((), (1,)):
        journal = journal_of(*came, 2, first=2)
        journal.allow(LANE, 1, 2)
        assert faults(ledger_of(0, 1, 2), journal) == []


def test_holes_of_transactions_and_compaction_are_no_loss():
    ledger = ledger_of(0, 5, 9)
    ledger.compacted[LANE].add(5)
    assert faults(ledger, journal_of(0, 9)) == []
    assert faults(ledger, journal_of(0, 5, 9)) == []


def test_what_is_gone_is_lost_unless_the_client_was_told():
    ledger = ledger_of(0, 1, 2, 3)
    ledger.trimmed(LANE, 3)
    silent, told = journal_of(0, 3), journal_of(0)
    told.told_gap("global", 0, 1, 3, "retention")
    told.received(LANE, 3, 103)
    assert faults(ledger, silent) == [(Kind.SKIPPED, (1, 2))]
    assert faults(ledger, told) == []


def test_a_gap_that_is_told_too_small_leaves_the_rest_skipped():
    ledger, journal = ledger_of(0, 1, 2, 3), journal_of(0)
    ledger.trimmed(LANE, 3)
    journal.told_gap("global", 0, 2, 3, "retention")
    journal.received(LANE, 3, 103)
    assert faults(ledger, journal) == [(Kind.SKIPPED, (1,))]


def test_a_gap_where_nothing_is_gone_is_false():
    ledger, journal = ledger_of(0, 1, 2, 3), journal_of(0)
    ledger.trimmed(LANE, 2)
    journal.told_gap("global", 0, 1, 3, "retention")
    journal.received(LANE, 3, 103)
    assert (Kind.FALSE_GAP, (2,)) in faults(ledger, journal)


def test_a_gap_told_late_or_about_what_came_is_wrong():
    ledger, late = ledger_of(0, 1, 2, 3), journal_of(0, 3)
    ledger.trimmed(LANE, 3)
    late.told_gap("global", 0, 1, 3, "retention")
    assert faults(ledger, late) == [(Kind.WRONG_GAP, (3,))]
    early = journal_of(0)
    early.told_gap("global", 0, 1, 3, "retention")
    early.received(LANE, 2, 102)
    early.received(LANE, 3, 103)
    assert faults(ledger, early) == [(Kind.WRONG_GAP, (2,))]


def test_a_topic_made_anew_excuses_the_old_ones_rest_only_where_it_was_told():
    ledger = ledger_of(0, 1, 2)
    ledger.deleted("global", "first")
    ledger.produced(RECREATED, 0, Record(1))
    silent, told = journal_of(0), journal_of(0)
    told.told_gap("global", 0, 1, 0, "recreated")
    for journal in (silent, told):
        journal.owe(RECREATED, 0)
        journal.received(RECREATED, 0, 1)
    assert faults(ledger, silent) == [(Kind.LOST, (1, 2))]
    assert faults(ledger, told) == []


def test_what_was_read_before_a_change_of_topics_was_seen_may_come_again_with_the_new_one():
    ledger = ledger_of(0, 1)
    ledger.deleted("global", "first")
    for offset in range(4):
        ledger.produced(RECREATED, offset, Record(offset))
    journal = journal_of(0, 1)
    journal.received(LANE, 2, 2)  # a record of the new topic, as the old one's
    silent = check(ledger, [journal])
    journal.told_gap("global", 0, 3, 0, "recreated")
    journal.owe(RECREATED, 0)
    for offset in range(4):
        journal.received(RECREATED, offset, offset)
    assert [fault.kind for fault in silent] == [Kind.INCONSISTENT]
    assert faults(ledger, journal) == []


def test_that_holds_for_a_partition_that_was_empty_in_the_old_topic():
    ledger, journal = Ledger(), Journal("bob")
    ledger.deleted("global", "first")
    ledger.produced(RECREATED, 0, Record(7))
    journal.owe(LANE, 0)
    journal.owe(RECREATED, 0)
    journal.received(LANE, 0, 7)
    journal.told_gap("global", 0, 1, 0, "recreated")
    journal.received(RECREATED, 0, 7)
    assert faults(ledger, journal) == []


def test_a_number_is_produced_once():
    ledger = ledger_of(0)
    with pytest.raises(ValueError, match="taken"):
        ledger.produced(LANE, 1, Record(100))


def test_what_is_wrong_is_named_by_client_partition_and_offsets():
    with pytest.raises(
        AssertionError, match=r"1 skipped, 1 lost:\nbob: skipped in global/0 of first: offsets 1-2, 5\nbob: lost in .*: offset 9"
    ):
        assert_nothing_wrong(ledger_of(*range(10)), [journal_of(0, 3, 4, 6, 7, 8)])


@st.composite
def logs(draw: st.DrawFn) -> tuple[Ledger, list[int]]:
    """A log with holes and aborted records, and the offsets that are to come."""
    offsets = sorted(draw(st.sets(st.integers(0, 60), min_size=3, max_size=30)))
    aborted = draw(st.sets(st.sampled_from(offsets), max_size=len(offsets) - 3))
    ledger = Ledger()
    for offset in offsets:
        ledger.produced(LANE, offset, Record(100 + offset, committed=offset not in aborted))
    return ledger, [offset for offset in offsets if offset not in aborted]


@given(logs(), st.data())
def test_one_fault_in_any_log_is_named_and_nothing_else(log: tuple[Ledger, list[int]], data: st.DataObject):
    ledger, due = log
    assert check(ledger, [journal_of(*due)]) == []
    at = data.draw(st.integers(0, len(due) - 2))
    offset = due[at]
    assert faults(ledger, journal_of(*due[:at], *due[at + 1 :])) == [(Kind.SKIPPED, (offset,))]
    assert faults(ledger, journal_of(*due[: at + 1])) == [(Kind.LOST, tuple(due[at + 1 :]))]
    assert faults(ledger, journal_of(*due[:at], due[at + 1], offset, *due[at + 2 :])) == [(Kind.OUT_OF_ORDER, (offset,))]
    assert faults(ledger, journal_of(*due[: at + 1], *due[at:])) == [(Kind.DUPLICATE, (offset,))]
    assert faults(ledger, journal_of(*due, 61)) == [(Kind.STRAY, (61,))]
