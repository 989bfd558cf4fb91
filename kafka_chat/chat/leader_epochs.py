"""The leader epochs of one partition's records: after an unclean election an offset names another record, and only epochs show it."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from .resume_cursor import NO_EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable

EpochRun = tuple[int, int]  # the offset of an epoch's last known record, and the epoch


class LeaderEpochs:
    """The known epochs, and the last known offset of each; in a log, epochs grow with the offsets.

    If an epoch is uncertain, a later one of the same log is used: a later one may only miss a loss, an earlier one would report a
    loss that did not happen.

    Attributes:
        latest: the highest known epoch; `NO_EPOCH` if there is none.
    """

    __slots__ = ("_epochs", "_lasts", "latest")

    def __init__(self, latest: int = NO_EPOCH) -> None:
        self.latest = latest
        self._lasts: list[int] = []
        self._epochs: list[int] = []

    def note(self, runs: Iterable[EpochRun]) -> None:
        """Note the epochs of records that were read, in any order."""
        for last, epoch in runs:
            index = bisect_left(self._epochs, epoch)
            if index == len(self._epochs) or self._epochs[index] != epoch:
                self._epochs.insert(index, epoch)
                self._lasts.insert(index, last)
                self.latest = max(self.latest, epoch)
            elif self._lasts[index] < last:
                self._lasts[index] = last

    def before(self, position: int) -> int:
        """Return the epoch of the record before a position, or a later one of this log; `NO_EPOCH` if none is known."""
        index = bisect_left(self._lasts, position - 1)
        return self._epochs[index] if index < len(self._epochs) else self.latest


def epoch_of(offset: int, runs: Iterable[EpochRun]) -> int:
    """Return the epoch of a record.

    Args:
        offset: the record's offset.
        runs: the runs of a range that contains it, by ascending offset.
    """
    return next((epoch for last, epoch in runs if offset <= last), NO_EPOCH)
