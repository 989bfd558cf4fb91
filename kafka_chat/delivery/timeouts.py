"""The timeouts of all requests to Kafka, from the brokers' measured response times.

A request takes one or two round trips over an open connection, and about ten if the connection must be opened first (TCP, TLS, SASL
and API versions, to a known broker and then to the leader). A broker may be on the next machine, or half a second away. So no
timeout is a constant: each is a multiple of the measured response time, at least a floor that allows for pauses of our own machine,
and at most `MOST_SECONDS`.

Requests without a response are not measured: the timeouts stay those of the last responses.
"""

from __future__ import annotations

from statistics import median

UNMEASURED_SECONDS = 5.0  # for a response, before the first measurement
MOST_SECONDS = 10.0  # the maximum of every timeout
MEASURED = 9  # responses of which the median counts, so that the first one, which takes ten times as long, has little weight

ANSWER_SECONDS = 3.0  # the floor for a response, …
ANSWER_TIMES = 20  # … and its multiple: enough to connect twice
PING_SECONDS = 1.0  # the floor for a ping, which takes a millisecond, …
PING_TIMES = 10  # … and its multiple: enough to connect
AGAIN_SECONDS = 0.15  # the floor before a request is also sent to another broker, …
AGAIN_TIMES = 3
AGAIN_MOST_SECONDS = 1.5  # … and its maximum: the first responses may be slow only because of connecting
PAGE_SECONDS = 0.5  # the floor for a page read, which takes about 20 ms, …
PAGE_TIMES = 12  # … and its multiple: enough for a Consumer to connect first
REQUEST_SECONDS = 5.0  # the floor for a client's whole request: some requests to Kafka, one after the other, and pages, …
REQUEST_TIMES = 25  # … and its multiple: enough for Consumers to connect first
# How long a publisher keeps a record before it gives it up (kafka/publish.py). A record produced later than this before the end of
# a request could be written after the request was refused.
WRITE_SECONDS = 3.5


class BrokerTimeouts:
    """The timeouts of one service, measured over all brokers together, because any of them may answer."""

    def __init__(self) -> None:
        self._took: tuple[float, ...] = ()
        self._typical: float | None = None

    def took(self, seconds: float) -> None:
        """Note a response time. May be called in any thread."""
        self._took = took = (*self._took[1 - MEASURED :], seconds)
        self._typical = median(took)

    @property
    def typical_seconds(self) -> float | None:
        """The typical response time; None before the first response."""
        return self._typical

    @property
    def answer_seconds(self) -> float:
        """How long to wait for one response before the brokers count as unreachable."""
        return self._times(ANSWER_TIMES, ANSWER_SECONDS)

    @property
    def ping_seconds(self) -> float:
        """How long to wait for a ping, which any broker answers."""
        return self._times(PING_TIMES, PING_SECONDS)

    @property
    def again_seconds(self) -> float:
        """How long to wait for a response before repeating the request, because the first broker may hang."""
        if self._typical is None:
            return AGAIN_SECONDS
        return min(max(AGAIN_TIMES * self._typical, AGAIN_SECONDS), AGAIN_MOST_SECONDS)

    @property
    def together_seconds(self) -> float:
        """How long to wait for several brokers that are asked together, so that one that hangs does not delay the others' answers."""
        return 2 * self.again_seconds

    @property
    def page_seconds(self) -> float:
        """How long a page read may occupy a shared reader; then it continues in a separate one, because its leader may hang."""
        return self._times(PAGE_TIMES, PAGE_SECONDS)

    @property
    def request_seconds(self) -> float:
        """How long a client's whole request may take before it is answered with 503."""
        return self._times(REQUEST_TIMES, REQUEST_SECONDS)

    @property
    def write_by_seconds(self) -> float:
        """How late in a request a record may be produced."""
        return self.request_seconds - WRITE_SECONDS

    def _times(self, times: int, floor: float) -> float:
        if self._typical is None:
            return UNMEASURED_SECONDS
        return min(max(times * self._typical, floor), MOST_SECONDS)
