"""Writes events as log lines, each event at a limited rate.

A line is the event's dotted name, then its fields as `key=value`; a value with other than plain characters is a JSON
string, so that an event is always one line.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from typing import TYPE_CHECKING

import trio

from .events import LINES_LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Event

Value = str | int | float

TELL_SECONDS = 60.0  # how often the number of lines left out is reported, per event and reason

KINDS = 500  # how many kinds of lines have their own rate; others share one. There are about 50 events and reasons.
OTHERS = ("others", "")

RATED = {"rated": True}  # of a log record: its rate has been looked at

log = logging.getLogger("kafka_chat")

_PLAIN = re.compile(r"[\w.:/@+,*\[\]-]+", re.ASCII)


def line_of(event: Event, fields: dict[str, Value]) -> str:
    """Return an event's log line."""
    return " ".join([event.name, *(f"{key}={_shown(value)}" for key, value in fields.items())])


def left_out_fields(event: str, reason: str, count: int) -> dict[str, Value]:
    """Return the fields of `log.left_out`."""
    return {"event": event, "count": count, **({"reason": reason} if reason else {})}


class Lines:
    """The log lines of one service. May be called in any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Make it.

        Args:
            clock: returns seconds.
        """
        self._rates = Rates(clock)

    @property
    def left_out(self) -> int:
        """How many lines were left out so far."""
        return self._rates.left_out

    def write(self, event: Event, fields: dict[str, Value], *, reason: str = "", error: BaseException | None = None) -> None:
        """Write an event, unless there were too many of it for this reason.

        Args:
            event: what happened.
            fields: the fields of the line.
            reason: one of a few reasons, each with its own rate.
            error: logged with its traceback.
        """
        if not log.isEnabledFor(event.level):
            return
        self.tell_left_out()
        if self._rates.take(event.name, reason, lines_a_second=event.lines_a_second, lines_at_once=event.lines_at_once):
            _write(event, fields, error=error)

    def tell_left_out(self, *, at_end: bool = False) -> None:
        """Report how many lines were left out, at most once a minute for each event and reason.

        Args:
            at_end: report even if the minute is not over.
        """
        for event, reason, count in self._rates.due(at_end=at_end):
            _write(LINES_LEFT_OUT, left_out_fields(event, reason, count))

    async def run_left_out(self) -> None:
        """Report once a minute how many lines were left out, and again when cancelled. Ends only when cancelled."""
        try:
            while True:
                await trio.sleep(1)
                self.tell_left_out()
        finally:
            self.tell_left_out(at_end=True)


class Rates:
    """Limits the lines of each kind. May be called in any thread.

    Attributes:
        left_out: how many lines of all kinds were left out.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.left_out = 0
        self._clock = clock
        self._lock = threading.RLock()  # reentrant, because a finalizer may log while it is held
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._silent: set[tuple[str, str]] = set()  # event and reason of lines left out and not reported yet

    def take(self, event: str, reason: str, *, lines_a_second: float, lines_at_once: int) -> bool:
        """Return whether one more line may be written now."""
        with self._lock:
            now = self._clock()
            kind = self._kinds.get((event, reason))
            if kind is None and len(self._kinds) >= KINDS:
                event, reason = OTHERS
                kind = self._kinds.get(OTHERS)
            if kind is None:
                kind = self._kinds[event, reason] = _Kind(now, lines_at_once)
            if kind.take(now, lines_a_second, lines_at_once):
                return True
            self.left_out += 1
            self._silent.add((event, reason))
            return False

    def due(self, *, at_end: bool = False) -> list[tuple[str, str, int]]:
        """Return event, reason and number of left-out lines that are due for a report, and reset the counts."""
        if not self._silent:
            return []
        with self._lock:
            now = self._clock()
            due = [key for key in tuple(self._silent) if at_end or now - self._kinds[key].silent_since >= TELL_SECONDS]
            self._silent.difference_update(due)
            return [(*key, self._kinds[key].told()) for key in sorted(due)]


class _Kind:
    """The lines of one event for one reason."""

    __slots__ = ("_left", "_left_out", "_looked", "silent_since")

    def __init__(self, now: float, lines_at_once: int) -> None:
        self._left = float(lines_at_once)
        self._looked = now
        self._left_out = 0
        self.silent_since = now

    def take(self, now: float, lines_a_second: float, lines_at_once: int) -> bool:
        self._left = min(self._left + (now - self._looked) * lines_a_second, lines_at_once)
        self._looked = now
        if self._left >= 1:
            self._left -= 1
            return True
        if not self._left_out:
            self.silent_since = now
        self._left_out += 1
        return False

    def told(self) -> int:
        count, self._left_out = self._left_out, 0
        return count


def _write(event: Event, fields: dict[str, Value], *, error: BaseException | None = None) -> None:
    log.log(event.level, "%s", line_of(event, fields), exc_info=error, extra=RATED)


def _shown(value: Value) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
