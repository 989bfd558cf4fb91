"""How long to wait for brokers, from their measured answer times: the source of every time-out of a question to Kafka.

What is asked is one round trip or two where the connection is there, and some ten where it has to be made first (TCP, TLS, SASL and
its versions, of the broker that is known and then of the one that leads). A broker may be on the next machine, or half a second
away. So nothing here is a constant: it is a multiple of what an answer took, between a floor, below which the machine's own pauses
would count, and `MOST_SECONDS`.

A broker that does not answer is not measured: its time-outs stay those of its last answer.
"""

from __future__ import annotations

from statistics import median

UNMEASURED_SECONDS = 5.0  # for an answer, before there was any
MOST_SECONDS = 10.0  # for anything
MEASURED = 9  # answers of which the median counts: a first one, which takes ten times as long, is soon without weight

ANSWER_SECONDS = 3.0  # the floor of an answer, …
ANSWER_TIMES = 20  # … and how often what one takes fits into it: a connection, twice
PING_SECONDS = 1.0  # the floor of a sign of life, which takes a millisecond, …
PING_TIMES = 10  # … or a connection
AGAIN_SECONDS = 0.15  # the floor before what is asked is asked of another broker, too, …
AGAIN_TIMES = 3
AGAIN_MOST_SECONDS = 1.5  # … and its ceiling: the first answers may be slow because of the connection alone
PAGE_SECONDS = 0.5  # the floor of a piece of the past, which takes some 20 ms, …
PAGE_TIMES = 12  # … of a Consumer that has to connect first
REQUEST_SECONDS = 5.0  # the floor of a whole request: some questions, one after the other, and pages, …
REQUEST_TIMES = 25  # … each page by a Consumer that may have to connect first
# How long a publisher may have a record before it gives it up (kafka/publish.py): what is handed over later than that before a
# request is refused could come true after it was refused.
WRITE_SECONDS = 3.5


class BrokerTimeouts:
    """The time-outs of one service; its brokers are taken together, for one may stand for another at any time."""

    def __init__(self) -> None:
        self._took: tuple[float, ...] = ()
        self._typical: float | None = None

    def took(self, seconds: float) -> None:
        """Note how long an answer took. May be called in any thread."""
        self._took = took = (*self._took[1 - MEASURED :], seconds)
        self._typical = median(took)

    @property
    def typical_seconds(self) -> float | None:
        """How long an answer takes; None while there was none."""
        return self._typical

    @property
    def answer_seconds(self) -> float:
        """How long to wait for one answer; then no broker answers."""
        return self._times(ANSWER_TIMES, ANSWER_SECONDS)

    @property
    def ping_seconds(self) -> float:
        """How long to wait for a sign of life: of any broker, which any broker gives."""
        return self._times(PING_TIMES, PING_SECONDS)

    @property
    def again_seconds(self) -> float:
        """How long to wait for an answer before asking again, too: what was asked first may have gone to a broker that hangs."""
        if self._typical is None:
            return AGAIN_SECONDS
        return min(max(AGAIN_TIMES * self._typical, AGAIN_SECONDS), AGAIN_MOST_SECONDS)

    @property
    def together_seconds(self) -> float:
        """How long several brokers are waited for that are asked together: one that hangs may not hold up what the others tell."""
        return 2 * self.again_seconds

    @property
    def page_seconds(self) -> float:
        """How long a piece of the past may keep a reader that others wait for; then it goes on apart, for its leader may hang."""
        return self._times(PAGE_TIMES, PAGE_SECONDS)

    @property
    def request_seconds(self) -> float:
        """How long a client's whole request may take before it is answered with 503."""
        return self._times(REQUEST_TIMES, REQUEST_SECONDS)

    @property
    def write_by_seconds(self) -> float:
        """How late in a request something may be handed over to be written."""
        return self.request_seconds - WRITE_SECONDS

    def _times(self, times: int, floor: float) -> float:
        if self._typical is None:
            return UNMEASURED_SECONDS
        return min(max(times * self._typical, floor), MOST_SECONDS)
