"""Reports each event by one method, as its log line (`lines.py`) and its metric.

`events.py` has the whole list. No metric has a label per user or chat, since their number is unbounded.
"""

from __future__ import annotations

import logging
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from ..chat.loss_cause import LossCause
from ..chat.message import LeftOut, Reject
from ..errors import first_error
from .events import (
    AUTH_KEYS_FAILED,
    AUTH_KEYS_READ,
    AUTH_OFF,
    AUTH_REFUSED,
    BROKERS_AWAY,
    BROKERS_BACK,
    CLUSTER_REPLACED,
    CONNECTION_ABORTED,
    CONNECTION_FAILED,
    CONNECTION_NOT_ACCEPTED,
    GAUGES,
    PAGE_READ_FAILED,
    POSITION_LOST,
    RECORD_REJECTED,
    RECORD_SHORTENED,
    REQUEST_FAILED,
    SESSION_CLOSED,
    SESSION_FAILED,
    SESSION_OPENED,
    SUBSCRIPTION_SKIPPED,
    SUBSCRIPTIONS_LOST,
    SUBSCRIPTIONS_PROBLEM,
    SUBSCRIPTIONS_READ,
    WORKER_ENDED,
    WORKER_LOST,
    WORKER_SERVING,
    WORKERS_NOT_RENEWED,
    WORKERS_RENEWED,
)
from .exposition import Family, families
from .lines import Lines, Value, log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from ..chat.subscription_fold import Skip

# Otherwise each counter has a series with its creation time, which is not needed: see `process_start_time_seconds`.
disable_created_metrics()  # type: ignore[no-untyped-call]

METRICS_CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Clients may send any other code; 3,999 label values would be possible.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013})
# Sent by a client, they say nothing about this service: libraries send 1011 for their own bugs.
_CODES_OF_SERVERS = frozenset({1011, 1012, 1013})

# Why a line was not written: too many of one event; the reader does not read; the write failed.
DROP_REASONS = ("rate", "stalled", "failed")


class Telemetry:
    """The events of one service, and its metrics in its own registry. May be called in any thread.

    Attributes:
        ask_all: returns the metrics of all workers; None if this process is the only one.
    """

    ask_all: Callable[[], Awaitable[bytes]] | None = None

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, dropped_lines: Callable[[], Mapping[str, int]] = dict) -> None:
        """Make it.

        Args:
            clock: returns seconds, for the rates of log lines.
            dropped_lines: returns how many log lines were dropped, by reason.
        """
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._lines = Lines(clock)
        registry.register(_DroppedLines(self._lines, dropped_lines))
        self._gauges: dict[str, Gauge] = {}
        self._brokers_answer = True

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, namespace="kafka_chat", registry=registry)

        about = Gauge("info", "Always 1; the label says which version runs.", ["version"], namespace="kafka_chat", registry=registry)
        about.labels(version("kafka-chat")).set(1)
        self._sessions = Gauge("sessions", "Clients that are connected now.", namespace="kafka_chat", registry=registry)
        self._sessions_opened = counter("sessions_opened", "Clients that connected.")
        self._sessions_closed = counter(
            "sessions_closed",
            "Clients that left, by WebSocket close code; 1006: without one. 1011, 1012 and 1013 are the service's own; from a client they "
            "are `other`.",
            "code",
        )
        self._sessions_failed = counter("sessions_failed", "Sessions that a bug ended.")
        self._session_seconds = counter("session_seconds", "Total duration of the sessions that ended.")
        self._fell_behind = counter("sessions_fell_behind", "How often ended sessions fell behind the memory and read pages.")
        self._discarded = counter("client_messages_discarded", "Messages of clients that were read and discarded.")
        self._delivered = counter("messages_delivered", "Messages written to clients: one message to two clients is two.")
        self._delivered_bytes = counter("delivered_bytes", "Bytes of frames written to clients.")
        rejected = counter("records_rejected", "Records that are not chat messages, by reason.", "reason")
        self._rejected = {reason: rejected.labels(reason.value) for reason in Reject}
        shortened = counter("records_shortened", "Messages shown without a part of their records, by part.", "what")
        self._shortened = {what: shortened.labels(what.value) for what in LeftOut}
        lost = counter("positions_lost", "Positions whose records were gone, by cause.", "cause")
        self._lost = {cause: lost.labels(cause.value) for cause in LossCause}
        self._page_reads = counter("page_reads", "Pages of the past read from Kafka.")
        self._page_bytes = counter("page_read_bytes", "Bytes of the past read from Kafka.")
        self._page_reads_failed = counter("page_reads_failed", "Pages of the past that could not be read.")
        self._connections_failed = counter("connection_failures", "Connections that an error ended.")
        self._aborted = counter("connections_aborted", "Connections that we cut, by reason.", "reason")
        self._not_accepted = counter("accepts_failed", "How often no connection could be accepted, by the system's error.", "reason")
        self._brokers = Gauge("brokers_reachable", "0 while no broker answers, else 1.", namespace="kafka_chat", registry=registry)
        self._brokers.set(1)
        self._clusters = counter("clusters_replaced", "How often another Kafka cluster was found at the brokers' addresses.")
        self._subscriptions_lost = counter("subscriptions_lost", "Subscriptions that their topic has lost while it was in use.")
        self._skipped = counter("subscription_records_skipped", "Records of the subscriptions topic that make no sense.", "reason")
        self._refused = counter("requests_refused", "Requests and handshakes answered with an error, by HTTP status.", "status")
        self._requests_failed = counter("requests_failed", "Requests that a bug ended (500).")
        self._auth_refused = counter("auth_refused", "Tokens that were refused, by issuer and reason.", "issuer", "reason")
        self._key_reads_failed = counter("auth_key_reads_failed", "How often an issuer's keys could not be read.", "issuer")

    def session_opened(self, *, session_id: str, username: str, peer: str) -> None:
        """A client has connected: the handshake is answered."""
        self._sessions.inc()
        self._sessions_opened.inc()
        self._lines.write(SESSION_OPENED, {"session": session_id, "user": username, "peer": peer})

    def session_closed(
        self,
        *,
        session_id: str,
        username: str,
        seconds: float,
        messages: int,
        bytes_sent: int,
        code: int,
        by_service: bool,
        fell_behind: int,
    ) -> None:
        """A client is gone.

        Args:
            session_id: its session.
            username: its user.
            seconds: how long it was connected.
            messages: how many messages it got.
            bytes_sent: the bytes of their frames.
            code: the code of its close frame; 1006 without one.
            by_service: whether the close code is the service's, not the client's.
            fell_behind: how often it had to wait for a page read.
        """
        self._sessions.dec()
        counted = code in _CLOSE_CODES and (by_service or code not in _CODES_OF_SERVERS)
        self._sessions_closed.labels(code if counted else "other").inc()
        self._session_seconds.inc(max(seconds, 0.0))
        self._fell_behind.inc(fell_behind)
        self._lines.write(
            SESSION_CLOSED,
            {
                "session": session_id,
                "user": username,
                "seconds": round(seconds, 3),
                "messages": messages,
                "bytes": bytes_sent,
                "code": code,
                "by": "service" if by_service else "client",
                "fell_behind": fell_behind,
            },
        )

    def session_failed(self, *, session_id: str, error: BaseException) -> None:
        """A bug in a session (close code 1011): logged with its traceback."""
        self._sessions_failed.inc()
        self._lines.write(SESSION_FAILED, {"session": session_id, **_blame(error)}, error=error)

    def client_text_discarded(self) -> None:
        """A message of a client was read and discarded."""
        self._discarded.inc()

    def delivered(self, *, messages: int, size: int) -> None:
        """Messages were written to sockets: how many, and their bytes. Called once per walk, not per client."""
        self._delivered.inc(messages)
        self._delivered_bytes.inc(size)

    def record_rejected(self, *, topic: str, partition: int, offset: int, reason: Reject) -> None:
        """A record is not a chat message."""
        self._rejected[reason].inc()
        self._lines.write(RECORD_REJECTED, {"reason": reason, "topic": topic, "partition": partition, "offset": offset}, reason=reason)

    def record_shortened(self, *, topic: str, partition: int, offset: int, what: LeftOut) -> None:
        """A message is shown without this part of its record."""
        self._shortened[what].inc()
        self._lines.write(RECORD_SHORTENED, {"what": what, "topic": topic, "partition": partition, "offset": offset}, reason=what)

    def position_lost(self, *, topic: str, partition: int, asked: int, first_left: int, cause: LossCause) -> None:
        """The records of `[asked, first_left)` are lost."""
        self._lost[cause].inc()
        fields: dict[str, Value] = {"cause": cause, "topic": topic, "partition": partition, "asked": asked, "first_left": first_left}
        self._lines.write(POSITION_LOST, fields, reason=cause)

    def page_read(self, *, topic: str, partition: int, size: int) -> None:
        """A page of the past was read: its bytes."""
        self._page_reads.inc()
        self._page_bytes.inc(size)

    def page_read_failed(self, *, topic: str, partition: int, error: Exception) -> None:
        """A page of the past could not be read."""
        self._page_reads_failed.inc()
        self._lines.write(PAGE_READ_FAILED, {"topic": topic, "partition": partition, **_blame(error)}, reason=type(error).__name__)

    def connection_failed(self, *, peer: str, error: BaseException) -> None:
        """A connection ended with an unexpected error; the process goes on."""
        self._connections_failed.inc()
        # Any client may cause this, so with a traceback each it could fill the disk.
        shown = error if log.isEnabledFor(logging.DEBUG) else None
        self._lines.write(CONNECTION_FAILED, {"peer": peer, **_blame(error)}, error=shown)

    def connection_aborted(self, *, peer: str, reason: str) -> None:
        """We aborted a connection that exceeded a limit (`write_seconds`, `too_large` and so on) or violated the protocol."""
        self._aborted.labels(reason).inc()
        self._lines.write(CONNECTION_ABORTED, {"reason": reason, "peer": peer}, reason=reason)

    def accept_failed(self, *, reason: str) -> None:
        """An accept failed, and will be retried; `reason` is the name of the system's error, such as `EMFILE`."""
        self._not_accepted.labels(reason).inc()
        self._lines.write(CONNECTION_NOT_ACCEPTED, {"reason": reason}, reason=reason)

    def brokers_away(self, *, reason: str) -> None:
        """No broker answers. Reported once, until one answers."""
        if self._brokers_answer:
            self._brokers_answer = False
            self._brokers.set(0)
            self._lines.write(BROKERS_AWAY, {"reason": reason})

    def brokers_back(self) -> None:
        """A broker answers again."""
        if not self._brokers_answer:
            self._brokers_answer = True
            self._brokers.set(1)
            self._lines.write(BROKERS_BACK, {})

    def cluster_replaced(self, *, earlier: str, now: str) -> None:
        """Another cluster has replaced the earlier one; both ids."""
        self._clusters.inc()
        self._lines.write(CLUSTER_REPLACED, {"earlier": earlier, "now": now})

    def subscriptions_read(self, *, users: int, records: int, seconds: float) -> None:
        """The subscriptions topic has been read to its end, at the start or again."""
        self._lines.write(SUBSCRIPTIONS_READ, {"users": users, "records": records, "seconds": round(seconds, 3)})

    def subscriptions_lost(self, *, topic: str, subscriptions: int) -> None:
        """The subscriptions topic was read again, and this many subscriptions are no longer in it."""
        self._subscriptions_lost.inc(subscriptions)
        self._lines.write(SUBSCRIPTIONS_LOST, {"topic": topic, "subscriptions": subscriptions})

    def subscriptions_problem(self, *, reason: str) -> None:
        """The subscriptions topic cannot be used."""
        self._lines.write(SUBSCRIPTIONS_PROBLEM, {"reason": reason})

    def subscription_skipped(self, *, topic: str, offset: int, reason: Skip) -> None:
        """A record of the subscriptions topic is invalid."""
        self._skipped.labels(reason.value).inc()
        self._lines.write(SUBSCRIPTION_SKIPPED, {"reason": reason, "topic": topic, "offset": offset}, reason=reason)

    def request_refused(self, *, status: int) -> None:
        """A request or a handshake was answered with an error, the client's or a temporary one."""
        self._refused.labels(status).inc()

    def request_failed(self, *, method: str, path: str, error: BaseException) -> None:
        """A bug in a request (500): logged with its traceback."""
        self._requests_failed.inc()
        self._lines.write(REQUEST_FAILED, {"method": method, "path": path, **_blame(error)}, error=error)

    def auth_refused(self, *, issuer: str | None, reason: str, kid: str | None, peer: str, why: str) -> None:
        """A token was refused.

        Args:
            issuer: the name, in the settings, of the issuer that it claims; None if there is none.
            reason: its class.
            kid: the key that it names.
            peer: who showed it.
            why: a sentence, without a byte of the token.
        """
        self._auth_refused.labels(issuer or "none", reason).inc()
        fields: dict[str, Value] = {"issuer": issuer or "none", "reason": reason, "kid": kid or "none", "peer": peer, "why": why}
        self._lines.write(AUTH_REFUSED, fields, reason=reason)

    def auth_keys_read(self, *, issuer: str, keys: int, refused: int) -> None:
        """An issuer's keys have changed."""
        self._lines.write(AUTH_KEYS_READ, {"issuer": issuer, "keys": keys, "refused": refused})

    def auth_keys_failed(self, *, issuer: str, reason: str, told: bool) -> None:
        """An issuer's keys could not be read; `told`: the log has this reason already."""
        self._key_reads_failed.labels(issuer).inc()
        if not told:
            self._lines.write(AUTH_KEYS_FAILED, {"issuer": issuer, "reason": reason}, reason=issuer)

    def auth_off(self, *, host: str) -> None:
        """Everybody may do everything, from more than this machine."""
        self._lines.write(AUTH_OFF, {"host": host})

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Show `read()` as the gauge `kafka_chat_{name}` in the metrics.

        Args:
            name: one of `GAUGES`; a second call replaces `read`.
            read: a cheap function, called in the trio thread.
        """
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, GAUGES[name], namespace="kafka_chat", registry=self._registry)
        self._gauges[name].set_function(read)

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format, whose type is `METRICS_CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def families(self) -> list[Family]:
        """Return all metrics, to be sent to another process."""
        return families(self._registry)

    async def metrics_of_all(self) -> bytes:
        """Return the metrics of all workers; those of this process if it is the only one.

        Raises:
            Overloaded: the supervisor does not answer.
        """
        return self.metrics() if self.ask_all is None else await self.ask_all()

    async def run_left_out(self) -> None:
        """Report once a minute how many log lines were left out, and at the end. Ends only when cancelled."""
        await self._lines.run_left_out()

    def tell_left_out(self) -> None:
        """Report now what `run_left_out` would report."""
        self._lines.tell_left_out()


class WorkersTelemetry:
    """The events of the supervisor, and its metrics."""

    def __init__(self, *, dropped_lines: Callable[[], Mapping[str, int]] = dict) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._lines = Lines(time.monotonic)
        registry.register(_DroppedLines(self._lines, dropped_lines))
        self._serving = Gauge("workers_serving", "Workers that serve now.", namespace="kafka_chat", registry=registry)
        self._lost = Counter("workers_lost", "Workers that ended unasked.", namespace="kafka_chat", registry=registry)

    def worker_serving(self, *, number: int, pid: int, seconds: float) -> None:
        """A worker serves, this long after it was started."""
        self._serving.inc()
        self._lines.write(WORKER_SERVING, {"worker": number, "pid": pid, "seconds": round(seconds, 3)})

    def worker_stopped_serving(self) -> None:
        """A serving worker has ended; another event says why."""
        self._serving.dec()

    def worker_lost(self, *, number: int, pid: int, reason: str, seconds: float, again_in_seconds: float) -> None:
        """A worker ended unexpectedly, this long after its start."""
        self._lost.inc()
        fields: dict[str, Value] = {"worker": number, "pid": pid, "reason": reason, "seconds": round(seconds, 3)}
        self._lines.write(WORKER_LOST, {**fields, "again_in_seconds": round(again_in_seconds, 3)})

    def worker_ended(self, *, number: int, pid: int, reason: str, seconds: float) -> None:
        """A worker ended as requested."""
        self._lines.write(WORKER_ENDED, {"worker": number, "pid": pid, "reason": reason, "seconds": round(seconds, 3)})

    def workers_renewed(self, *, workers: int) -> None:
        """All workers were replaced."""
        self._lines.write(WORKERS_RENEWED, {"workers": workers})

    def workers_not_renewed(self, *, reason: str) -> None:
        """Not all workers were replaced."""
        self._lines.write(WORKERS_NOT_RENEWED, {"reason": reason})

    async def run_left_out(self) -> None:
        """Report once a minute how many log lines were left out, and at the end. Ends only when cancelled."""
        await self._lines.run_left_out()

    def families(self) -> list[Family]:
        """Return all metrics, to be combined with those of workers."""
        return families(self._registry)


class _DroppedLines(Collector):
    """Collects how many log lines were not written."""

    def __init__(self, lines: Lines, dropped_lines: Callable[[], Mapping[str, int]]) -> None:
        self._lines = lines
        self._dropped_lines = dropped_lines

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter, with all its reasons."""
        metric = CounterMetricFamily("kafka_chat_log_lines_dropped", "Log lines that were not written, by reason.", labels=["reason"])
        dropped = dict.fromkeys(DROP_REASONS, 0) | dict(self._dropped_lines())
        dropped["rate"] += self._lines.left_out
        for reason, count in dropped.items():
            metric.add_metric([reason], count)
        yield metric


def _blame(error: BaseException) -> dict[str, Value]:
    """Return an error's type and the line that raised it; of a group, its first error."""
    error = first_error(error)
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return {"error": f"{type(error).__name__}: {error}"[:500], "at": place}
