"""Configures the service's Kafka clients, and converts their errors into ours."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from confluent_kafka import KafkaError, KafkaException

from ..delivery.timeouts import BrokerTimeouts
from ..errors import BrokerError, BrokerUnreachable, ServiceFailed, SettingsError, TopicGone

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..errors import KafkaChatError
    from ..settings.model import KafkaSettings

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

Property = Any  # a string, a number, a flag, a function for a callback, or a logger, as confluent_kafka types it

SAME_LINE_SECONDS = 60.0  # an absent broker causes a dozen lines a second per client; one a minute is enough
KINDS_OF_LINES = 1_000
_NO_ROOM = (errno.EAGAIN, errno.ENOMEM)  # librdkafka has them in its sentence alone
_OF_CONFIGURATION = "CONFWARN"  # librdkafka's facility
_OF_ANOTHER_KIND = "will be ignored by this"  # consumer, or producer

# Defaults that `kafka.properties` may override.
_DEFAULTS: dict[str, Property] = {
    "client.id": "kafka_chat",
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 2_000,  # how late, at most, the return of a broker is noticed
    "socket.timeout.ms": 10_000,
    "socket.connection.setup.timeout.ms": 5_000,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
    "log.connection.close": False,  # brokers close idle connections; not worth a line
}

_PAUSES = ("reconnect.backoff.ms", "reconnect.backoff.max.ms")

# The same for clients that stay connected to all brokers. While no broker can be used, librdkafka discards its brokers after each failure
# and starts again with the first pause, so the pause never grows. With 100 ms, clients without TLS at a listener that requires a password
# take 0.15 of a core; with 500 ms 0.07. Consumers keep 100 ms: a leader that cut a connection must be read again soon.
_CONNECTED_TO_ALL: dict[str, Property] = {"reconnect.backoff.ms": 500}

# The same for the producer only: how many KiB may wait for their acknowledgement. librdkafka's default is 1 GiB; beyond the limit
# requests get 503.
_PRODUCER_DEFAULTS: dict[str, Property] = {"queue.buffering.max.kbytes": 32_768}

# Properties that the service's promises depend on, which may not be overridden.
_CONSUMER: dict[str, Property] = {
    "group.id": "kafka_chat",  # required even without commits; an empty one aborts the process
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}

_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._DESTROY_BROKER,  # a request to a broker that has left the cluster in the meantime
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
    }
)

_GONE = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
    }
)


class ClientConfig:
    """The configurations of all clients of one service.

    Args:
        settings: with `bootstrap_servers` set, also for the embedded broker.

    Attributes:
        timeouts: how long to wait for these brokers.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        if not settings.bootstrap_servers:
            raise ValueError("no bootstrap_servers; the embedded broker has some, too, once it is open")
        self.timeouts = BrokerTimeouts()
        self.embedded = bool(settings.embedded)
        self.bootstrap_servers = settings.bootstrap_servers
        self.logger = SparingLogger(logging.getLogger("kafka_chat.kafka"))
        self._common: dict[str, Property] = {
            **_DEFAULTS,
            **settings.properties,
            "bootstrap.servers": settings.bootstrap_servers,
            "logger": self.logger,
        }
        # A shorter maximum of the operator's may not go with our pause.
        paced = settings.properties.keys().isdisjoint(_PAUSES)
        self._connected_to_all = {**self._common, **(_CONNECTED_TO_ALL if paced else {}), "enable.sparse.connections": False}

    def consumer(self, *, fetch_wait_ms: int = 100, **extra: Property) -> dict[str, Property]:
        """Return the properties of a Consumer: no group, no commits, committed records only, never a reset position.

        Args:
            fetch_wait_ms: how long a broker may hold an empty fetch. Other requests on that connection
                wait behind it. The embedded broker always waits the full time, so it is at most 5 there.
            extra: further properties, under librdkafka's names.
        """
        return {**self._common, "fetch.wait.max.ms": min(fetch_wait_ms, 5) if self.embedded else fetch_wait_ms, **extra, **_CONSUMER}

    def producer(self, **extra: Property) -> dict[str, Property]:
        """Return the properties of a Producer; the publisher adds those that its promises need.

        It connects to all brokers, not only to those it has written to: a connection to a distant one, with TLS and a
        password, takes longer than a record may wait.
        """
        return {**_PRODUCER_DEFAULTS, **self._connected_to_all, **extra}

    def admin(self, **extra: Property) -> dict[str, Property]:
        """Return the properties of an AdminClient.

        It sends most requests to the controller, and learns of a new controller only by refreshing its metadata:
        after the last one was killed it would get no answers for a minute and more, although all other brokers are up.
        """
        # If it connects only to brokers it needs, its only connection may be to a broker that hangs.
        return {**self._connected_to_all, "topic.metadata.refresh.interval.ms": 1_000, "allow.auto.create.topics": False, **extra}


class SparingLogger:
    """Passes on librdkafka's and our log lines, one of each kind a minute. librdkafka calls it in the polling thread."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[object, float] = {}

    def log(self, level: int, template: str, *args: object) -> None:
        """Log, unless the last minute had a line with the same template and first argument (librdkafka's facility).

        What librdkafka says of the configuration counts by itself. That a client ignores what another kind of client needs is left out:
        each property is for some of our clients.
        """
        now = time.monotonic()
        kind = (template, args[0] if args else None)
        if args and args[0] == _OF_CONFIGURATION:
            if _OF_ANOTHER_KIND in str(args[-1]):
                return
            kind = (template, args[-1])
        if now - self._last.get(kind, -SAME_LINE_SECONDS) < SAME_LINE_SECONDS:
            return
        if len(self._last) >= KINDS_OF_LINES:
            self._last.clear()
        self._last[kind] = now
        self._logger.log(min(level, logging.WARNING), template, *args)


def not_made(error: KafkaException) -> KafkaChatError:
    """Return our error for a client that librdkafka does not make: its settings are wrong, or the machine has no room for it."""
    why = error.args[0].str()
    if any(os.strerror(number) in why for number in _NO_ROOM):
        return ServiceFailed(
            f"there is no memory or thread left for Kafka's client ({why}); allow this process more (ulimit, or the container's limits)"
        )
    return SettingsError(f"kafka.properties cannot be used: {why}")


def unreachable(error: KafkaError) -> bool:
    """Return whether an error says that no broker answered."""
    return error.code() in _UNREACHABLE


def of_the_group(error: KafkaError) -> bool:
    """Return whether an error is about the consumer group: no Consumer joins it, so it needs no permission.

    librdkafka looks for the coordinator of every Consumer's group, and returns a refusal from a poll for records.
    """
    return error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def broker_error(error: KafkaError, doing: str, *, topic: str | None = None, partition: int | None = None) -> BrokerError:
    """Return our error for one of librdkafka's.

    Args:
        error: the one from librdkafka.
        doing: the operation, as in "reading the watermarks of chat.blue/3".
        topic: its topic, if known.
        partition: its partition, if known.
    """
    kind = BrokerUnreachable if unreachable(error) else TopicGone if error.code() in _GONE else BrokerError
    return kind(f"{doing} failed: {error.str()} ({error.name()})", topic=topic, partition=partition)


@contextmanager
def broker_errors(doing: str, *, topic: str | None = None, partition: int | None = None) -> Iterator[None]:
    """Convert librdkafka's errors in the block into ours.

    Raises:
        BrokerUnreachable: no broker answered.
        TopicGone: there is no such topic or partition.
        BrokerError: the broker refused it for another reason.
    """
    try:
        yield
    except KafkaException as error:
        raise broker_error(error.args[0], doing, topic=topic, partition=partition) from error


async def admin_futures(
    futures: Mapping[K, Future[T]],
    *,
    doing: str,
    timeout_seconds: float,
    timeouts: BrokerTimeouts,
    told: Callable[[T], bool] = lambda _: True,
) -> dict[K, T | KafkaError]:
    """Return the results of an AdminClient's futures, errors included.

    The response time of each answer is reported to `timeouts`, even if the caller no longer waits;
    `told` says whether a result is an answer.

    Raises:
        BrokerUnreachable: not all were answered in time.
    """
    token = trio.lowlevel.current_trio_token()
    answered = trio.Event()
    waiting = len(futures)
    lock = threading.Lock()
    asked = time.monotonic()

    def one_less(future: Future[T]) -> None:
        # librdkafka resolves all futures of an AdminClient in one thread, but a done future calls this at once, in ours.
        nonlocal waiting
        error = future.exception()
        if error is not None:
            # confluent_kafka itself raises an error of the whole request, whose traceback refers to the frame with all futures,
            # which refer to the error: a reference cycle, even if the answer comes after we gave up.
            error.__traceback__ = None
        took = time.monotonic() - asked
        with lock:
            waiting -= 1
            last = not waiting
        if last and error is None and told(future.result()):
            timeouts.took(took)
        if last:
            with suppress(trio.RunFinishedError):  # no task waits any more
                token.run_sync_soon(answered.set)

    for future in futures.values():
        future.add_done_callback(one_less)
    with trio.move_on_after(timeout_seconds):
        if futures:
            await answered.wait()
    if not all(future.done() for future in futures.values()):
        raise BrokerUnreachable(f"{doing} failed: no broker answered within {timeout_seconds:g} s")
    results: dict[K, T | KafkaError] = {}
    for key, future in futures.items():
        # Not `result()`: an error raised here would refer to this frame, this frame to the future, and the future to the error:
        # a reference cycle per absent topic and request.
        error = future.exception()
        if error is None:
            results[key] = future.result()
        elif isinstance(error, KafkaException):
            results[key] = error.args[0]
        else:
            raise error
    return results
