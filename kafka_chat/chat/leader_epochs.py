"""Which leader epochs the records of one partition have: after an unclean election an offset names another record, and only they tell."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from .resume_cursor import NO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable

EpochRun = tuple[int, int]  # the offset of the last record that was seen of an epoch, and that epoch


class LeaderEpochs:
    """The epochs that were seen, and where each was seen last. In a log they grow with the offsets, so this is all there is to know.

    What is not known for sure is a later epoch of the same log, never an earlier one: a later one may only let a loss go unseen, an
    earlier one would tell of one that never was.

    Attributes:
        latest: the highest that is known; `NO_EPOCH` where none is.
    """

    __slots__ = ("_epochs", "_lasts", "latest")

    def __init__(self, latest: int = NO_EPOCH) -> None:
        self.latest = latest
        self._lasts: list[int] = []
        self._epochs: list[int] = []

    def note(self, runs: Iterable[EpochRun]) -> None:
        """Take note of records that were seen, in the order of their offsets or not."""
        for last, epoch in runs:
            index = bisect_left(self._epochs, epoch)
            if index == len(self._epochs) or self._epochs[index] != epoch:
                self._epochs.insert(index, epoch)
                self._lasts.insert(index, last)
                self.latest = max(self.latest, epoch)
            elif self._lasts[index] < last:
                self._lasts[index] = last

    def before(self, position: int) -> int:
        """Return the epoch of the record before a position, or a later one of this log; `NO_EPOCH` where none is known."""
        index = bisect_left(self._lasts, position - 1)
        return self._epochs[index] if index < len(self._epochs) else self.latest


def epoch_of(offset: int, runs: Iterable[EpochRun]) -> int:
    """Return the epoch of a record.

    Args:
        offset: of the record.
        runs: those of a range that it is in, in the order of their offsets.
    """
    return next((epoch for last, epoch in runs if offset <= last), NO_EPOCH)
