"""Why brokers do not answer: librdkafka's errors of connections that it cannot open or keep."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError

KINDS = 8  # how many are kept; brokers that are away for the same reason differ only in their addresses

_SINCE = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")
# A broker closes the connection of one that does not speak as it wants to be spoken to, and librdkafka says no more than that.
_CLOSED_BY_BROKER = ("Broken pipe", "Connection reset by peer")  # mostly it does not even say that
_CLOSED = "each connection was closed at the first request; the listener may want TLS or a password (security.protocol)"


class Reasons:
    """The last ones that differ.

    Attributes:
        all_down: librdkafka has tried all brokers that it knows, and reached none.
    """

    def __init__(self) -> None:
        self.all_down = False
        self._said: dict[str, None] = {}

    def take(self, error: KafkaError) -> None:
        """Take an error of a whole client. Called by librdkafka, in whichever thread polls; nothing may be raised here."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.all_down = True  # which adds nothing to those before it
            return
        said, kinds = _SINCE.sub("", error.str()), self._said
        if said.endswith(_CLOSED_BY_BROKER):
            return
        kinds.pop(said, None)
        kinds[said] = None
        if len(kinds) > KINDS:
            del kinds[next(iter(kinds))]

    def forget(self) -> None:
        """Forget them: brokers answer."""
        self.all_down = False
        self._said = {}

    def __str__(self) -> str:
        """Return them, the last one first; "" for none."""
        said = "; ".join(reversed(tuple(self._said)))
        return said or (_CLOSED if self.all_down else "")
