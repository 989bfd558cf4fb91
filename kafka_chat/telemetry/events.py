"""Lists every log line with its metric, and every gauge."""

from __future__ import annotations

import logging
from dataclasses import dataclass

# The limit of lines of one event for one reason; further lines are counted, and reported in one line a minute. Ten are enough to see
# what they have in common, and about 100 MB a day in the worst case.
LINES_A_SECOND = 10
# An operator looks up a client by its session's two lines, so their limits allow for all clients of an instance that reconnect at
# once, and for a busy day; a client that connects in a loop causes 15 kB of them a second.
SESSION_LINES_A_SECOND = 50
SESSION_LINES_AT_ONCE = 10_000
NOT_ACCEPTED_SECONDS = 60.0  # between two lines about failed accepts, which are retried ten times a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of log line.

    Attributes:
        name: the beginning of the line.
        level: the level of `logging`.
        meaning: what happened, for the operator.
        metric: the metric that counts it, if any.
        lines_a_second: the long-term rate of lines for one reason.
        lines_at_once: how many lines may be written at once; as many again are possible after this number divided by
            `lines_a_second` seconds.
    """

    name: str
    level: int
    meaning: str
    metric: str | None = None
    lines_a_second: float = LINES_A_SECOND
    lines_at_once: int = LINES_A_SECOND


SESSION_OPENED = Event(
    name="session.opened",
    level=logging.INFO,
    metric="kafka_chat_sessions_opened_total",
    lines_a_second=SESSION_LINES_A_SECOND,
    lines_at_once=SESSION_LINES_AT_ONCE,
    meaning="A client has connected.",
)
SESSION_CLOSED = Event(
    name="session.closed",
    level=logging.INFO,
    metric="kafka_chat_sessions_closed_total",
    lines_a_second=SESSION_LINES_A_SECOND,
    lines_at_once=SESSION_LINES_AT_ONCE,
    meaning="A client has left: how long it stayed, what it got, the close code and who sent it, how often it fell behind the memory.",
)
SESSION_FAILED = Event(
    name="session.failed",
    level=logging.ERROR,
    metric="kafka_chat_sessions_failed_total",
    meaning="A bug ended one session (close code 1011). Please report it, with its traceback.",
)
RECORD_REJECTED = Event(
    name="record.rejected",
    level=logging.WARNING,
    metric="kafka_chat_records_rejected_total",
    meaning="A record in a chat's topic is not a chat message and was skipped. Look at its producer.",
)
RECORD_SHORTENED = Event(
    name="record.shortened",
    level=logging.WARNING,
    metric="kafka_chat_records_shortened_total",
    meaning="A message is shown without a part of its record that is too large or cannot be read; `what` says which.",
)
POSITION_LOST = Event(
    name="position.lost",
    level=logging.WARNING,
    metric="kafka_chat_positions_lost_total",
    meaning="Records were gone before they could be read: retention, a recreated topic, a truncated log. From `asked` up to `first_left`.",
)
PAGE_READ_FAILED = Event(
    name="page.read_failed",
    level=logging.WARNING,
    metric="kafka_chat_page_reads_failed_total",
    meaning="A page of the past could not be read; the clients that wait for it try again.",
)
CONNECTION_FAILED = Event(
    name="connection.failed",
    level=logging.WARNING,
    metric="kafka_chat_connection_failures_total",
    meaning="An error caused by a client's bytes, or by a bug, ended one connection. The traceback is logged at level DEBUG.",
)
CONNECTION_ABORTED = Event(
    name="connection.aborted",
    level=logging.INFO,
    metric="kafka_chat_connections_aborted_total",
    meaning="We cut a connection: the client does not read, is silent, or breaks the rules; `reason` says which.",
)
CONNECTION_NOT_ACCEPTED = Event(
    name="connection.not_accepted",
    level=logging.WARNING,
    metric="kafka_chat_accepts_failed_total",
    lines_a_second=1 / NOT_ACCEPTED_SECONDS,
    lines_at_once=1,
    meaning="The system has no descriptor or memory for one more connection; it waits until there is. Logged once a minute.",
)
BROKERS_AWAY = Event(
    name="brokers.away",
    level=logging.WARNING,
    metric="kafka_chat_brokers_reachable",
    meaning="No broker answers. Clients stay connected, and get what they missed once one answers again.",
)
BROKERS_BACK = Event(name="brokers.back", level=logging.WARNING, metric="kafka_chat_brokers_reachable", meaning="A broker answers again.")
CLUSTER_REPLACED = Event(
    name="cluster.replaced",
    level=logging.WARNING,
    metric="kafka_chat_clusters_replaced_total",
    meaning="Another Kafka cluster answers at the brokers' addresses. Clients get a `gap` in all their chats, and what that one has.",
)
SUBSCRIPTIONS_READ = Event(
    name="subscriptions.read",
    level=logging.INFO,
    meaning="The subscriptions topic has been read to its end: how many users follow something, how many records that took.",
)
SUBSCRIPTIONS_LOST = Event(
    name="subscriptions.lost",
    level=logging.WARNING,
    metric="kafka_chat_subscriptions_lost_total",
    meaning="The subscriptions topic was deleted, recreated or truncated while it was in use: `subscriptions` says how many it lost.",
)
SUBSCRIPTIONS_PROBLEM = Event(
    name="subscriptions.problem",
    level=logging.WARNING,
    meaning="The subscriptions topic cannot be used as it is; the reason says what to do. Default chats are served meanwhile.",
)
SUBSCRIPTION_SKIPPED = Event(
    name="subscription.skipped",
    level=logging.WARNING,
    metric="kafka_chat_subscription_records_skipped_total",
    meaning="A record in the subscriptions topic makes no sense to this version and was skipped. Find out what else writes to the topic.",
)
REQUEST_FAILED = Event(
    name="request.failed",
    level=logging.ERROR,
    metric="kafka_chat_requests_failed_total",
    meaning="A bug: a request was answered with 500. Please report it, with its traceback.",
)
AUTH_REFUSED = Event(
    name="auth.refused",
    level=logging.INFO,
    metric="kafka_chat_auth_refused_total",
    meaning="A token was refused: whose it claims to be, why, with which key, where it came from. The client is told none of that.",
)
AUTH_KEYS_READ = Event(
    name="auth.keys_read",
    level=logging.INFO,
    meaning="An issuer's keys have been read, and have changed: how many, and how many were refused (`kafka-chat check` says why).",
)
AUTH_KEYS_FAILED = Event(
    name="auth.keys_failed",
    level=logging.WARNING,
    metric="kafka_chat_auth_key_reads_failed_total",
    meaning="An issuer's keys could not be read; the last good ones stay in force. Logged once for each reason.",
)
AUTH_OFF = Event(
    name="auth.off",
    level=logging.WARNING,
    meaning="The service listens on more than this machine, and asks nobody for a token: everybody may do everything (`auth.issuers`).",
)
WORKER_SERVING = Event(
    name="worker.serving",
    level=logging.INFO,
    metric="kafka_chat_workers_serving",
    meaning="A worker serves (`server.workers` above 1; the supervisor logs this).",
)
WORKER_LOST = Event(
    name="worker.lost",
    level=logging.ERROR,
    metric="kafka_chat_workers_lost_total",
    meaning="A worker ended unasked, or hung: its exit code or signal, how long it ran, after how many seconds another is started.",
)
WORKER_ENDED = Event(
    name="worker.ended",
    level=logging.INFO,
    meaning="A worker ended as requested: for a restart (SIGHUP), or at shutdown. If the code is not 0, look at the lines above.",
)
WORKERS_RENEWED = Event(name="workers.renewed", level=logging.INFO, meaning="SIGHUP: all workers were replaced, one after the other.")
WORKERS_NOT_RENEWED = Event(
    name="workers.not_renewed",
    level=logging.ERROR,
    meaning="SIGHUP: the settings are wrong, or a new worker did not start serving. Workers that were not replaced go on serving.",
)
LINES_LEFT_OUT = Event(
    name="log.left_out",
    level=logging.WARNING,
    metric="kafka_chat_log_lines_dropped_total",
    meaning="`count` more lines of one event were left out: they exceeded its rate (*Rates*, below). Logged once a minute.",
)
LINES_DROPPED = Event(
    name="log.dropped",
    level=logging.WARNING,
    metric="kafka_chat_log_lines_dropped_total",
    meaning="`lines` lines are missing here: nobody read them from stderr, or a write failed (a full disk). The service went on.",
)

EVENTS = (
    SESSION_OPENED,
    SESSION_CLOSED,
    SESSION_FAILED,
    RECORD_REJECTED,
    RECORD_SHORTENED,
    POSITION_LOST,
    PAGE_READ_FAILED,
    CONNECTION_FAILED,
    CONNECTION_ABORTED,
    CONNECTION_NOT_ACCEPTED,
    BROKERS_AWAY,
    BROKERS_BACK,
    CLUSTER_REPLACED,
    SUBSCRIPTIONS_READ,
    SUBSCRIPTIONS_LOST,
    SUBSCRIPTIONS_PROBLEM,
    SUBSCRIPTION_SKIPPED,
    REQUEST_FAILED,
    AUTH_REFUSED,
    AUTH_KEYS_READ,
    AUTH_KEYS_FAILED,
    AUTH_OFF,
    WORKER_SERVING,
    WORKER_LOST,
    WORKER_ENDED,
    WORKERS_RENEWED,
    WORKERS_NOT_RENEWED,
    LINES_LEFT_OUT,
    LINES_DROPPED,
)

GAUGES = {
    "connections": "Connections that are open now, of all kinds: what limits.connections is about.",
    "sockets": "WebSockets, event streams and pages that hold a place now, including those that are opening.",
    "memory_held_bytes": "What is held in memory of Kafka's records, and owed to sockets.",
    "memory_limit_bytes": "memory.bytes: what may be held.",
    "owed_bytes": "What sockets have not taken yet, and what clients have said that is not whole, waits, or is remembered for them.",
    "catching_up": "Clients that have not yet received everything that was there when they connected.",
    "followed_topics": "Topics whose live end is followed.",
    "followed_partitions": "Partitions whose live end is followed.",
    "partitions_held": "Partitions that an open transaction has held up for 30 s.",
}
