"""Listings of topics and brokers, by a Consumer in a thread: any broker answers them, and they create no topic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio
from confluent_kafka import KafkaException

from ..delivery.timeouts import MOST_SECONDS
from ..errors import BrokerUnreachable
from .admins import PING_TOPIC

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin._metadata import ClusterMetadata

    from ..delivery.timeouts import BrokerTimeouts
    from .reasons import Reasons

LEAST_SECONDS = 0.05  # for a listing whose time is already over
SLICE_SECONDS = 0.8  # how long a cancel waits for the thread of a listing; with a connection, the answer comes earlier
REACH_SECONDS = 0.5  # the first check whether librdkafka has tried all brokers; later ones after twice as long: each repeats a listing


class Listings:
    """Asks for listings. Its methods wait, so a thread calls them; a Consumer takes one call at a time.

    Args:
        consumer: never assigned. Its metadata requests create no topic, while an AdminClient's do.
        timeouts: how long to wait for brokers; gets their response times.
        reasons: librdkafka's connection errors.
    """

    def __init__(self, consumer: Consumer, timeouts: BrokerTimeouts, reasons: Reasons) -> None:
        self._consumer = consumer
        self._timeouts = timeouts
        self._reasons = reasons

    def close(self) -> None:
        """Release the Consumer; ask nothing afterwards."""
        self._consumer.close()

    def poll(self) -> None:
        """Let the Consumer report its log lines and errors now."""
        self._consumer.poll(0)

    def reach(self) -> None:
        """Return if any broker answers; if librdkafka reaches none, raise `BrokerUnreachable` with its reasons."""
        # Not `answer_seconds`: nothing is measured yet, and brokers half a second away with TLS and SASL take up to 7 s.
        until, seconds = time.monotonic() + MOST_SECONDS, REACH_SECONDS
        while True:
            left = until - time.monotonic()
            try:
                self._consumer.list_topics(PING_TOPIC, timeout=min(seconds, max(left, REACH_SECONDS)))
                return
            except KafkaException as error:
                unanswered = self.unanswered(error)
                if self._reasons.all_down or left <= seconds:
                    raise unanswered from error
            seconds *= 2

    def unanswered(self, error: KafkaException) -> BrokerUnreachable:
        """Return our error for a listing that no broker has answered, with librdkafka's reasons."""
        self.poll()  # which reports them
        return BrokerUnreachable(f"no broker answers: {str(self._reasons) or error.args[0].str()}")

    def of(self, topic: str | None) -> ClusterMetadata:
        """Return a listing of one topic, or of all.

        Raises:
            KafkaException: no broker answers.
            trio.Cancelled: the task that waits for the thread is cancelled.
        """
        began = time.monotonic()
        until = began + self._timeouts.ping_seconds
        while True:
            trio.from_thread.check_cancelled()
            left = until - time.monotonic()
            asked = {} if topic is None else {"topic": topic}
            try:
                # Never negative, which means forever: the process may have been stopped for a while.
                listing: ClusterMetadata = self._consumer.list_topics(**asked, timeout=max(LEAST_SECONDS, min(left, SLICE_SECONDS)))
            except KafkaException:
                if left <= SLICE_SECONDS:
                    raise
            else:
                self._timeouts.took(time.monotonic() - began)
                return listing
