"""Why brokers do not answer: librdkafka's connection errors."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError

KINDS = 8  # how many are kept; errors that differ only in the broker's address count as one

_SINCE = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")
# A broker closes the connection if a client does not use its security protocol, and librdkafka reports nothing else,
_CLOSED_BY_BROKER = ("Broken pipe", "Connection reset by peer")  # mostly not even that
_CLOSED = "each connection was closed at the first request; the listener may want TLS or a password (security.protocol)"


class Reasons:
    """The last different errors.

    Attributes:
        all_down: whether librdkafka has tried all brokers that it knows, and reached none.
    """

    def __init__(self) -> None:
        self.all_down = False
        self._said: dict[str, None] = {}

    def take(self, error: KafkaError) -> None:
        """Note a client-wide error. Called by librdkafka in the polling thread; must not raise."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.all_down = True  # the error itself only repeats earlier ones
            return
        said, kinds = _SINCE.sub("", error.str()), self._said
        if said.endswith(_CLOSED_BY_BROKER):
            return
        kinds.pop(said, None)
        kinds[said] = None
        if len(kinds) > KINDS:
            del kinds[next(iter(kinds))]

    def forget(self) -> None:
        """Forget them, since brokers answer."""
        self.all_down = False
        self._said = {}

    def __str__(self) -> str:
        """Return them, latest first; "" for none."""
        said = "; ".join(reversed(tuple(self._said)))
        return said or (_CLOSED if self.all_down else "")
