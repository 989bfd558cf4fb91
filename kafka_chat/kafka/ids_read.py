"""Knows the id of the topic that a Consumer reads: librdkafka reads on in a recreated topic, and only its log shows it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .connect import Property, SparingLogger

_CHANGED = re.compile(r"Topic (\S+) changed id from (\S+) to (\S+)$")
TOPICS_NOTED = 20_000


class IdsRead:
    """The logger of one Consumer. It notes the ids of topics, and passes on other lines, except those that only this class enables.

    A Consumer fetches records by topic id, which it knows from its metadata. So it gets the new id before any record of the new topic,
    and in the queue that is polled, log lines come before records (tests/edges). From brokers older than 3.1 it fetches by name, and
    records may come before the id.

    Called in the thread that polls the Consumer.

    Args:
        logger: gets the other lines.
    """

    def __init__(self, logger: SparingLogger) -> None:
        self._logger = logger
        self._passes_debug = False
        self._ids: dict[str, str] = {}

    def heard(self, properties: Mapping[str, Property]) -> dict[str, Property]:
        """Return the Consumer's properties: `properties`, and those that send its log here."""
        asked = properties.get("debug")  # the operator's
        self._passes_debug = bool(asked)
        return {**properties, "logger": self, "debug": f"{asked},metadata" if asked else "metadata"}

    def reads(self, topic: str, topic_id: str) -> bool:
        """Whether the Consumer, as far as known, reads the topic of this id, and not another one of its name."""
        return self._ids.get(topic, topic_id) == topic_id

    def log(self, level: int, template: str, *args: object) -> None:
        """Take one of librdkafka's log lines."""
        if level <= logging.DEBUG:
            changed = _CHANGED.search(str(args[-1]))
            if changed is not None:
                self._note(changed[1], changed[3])
            if not self._passes_debug:
                return
        self._logger.log(level, template, *args)

    def _note(self, topic: str, topic_id: str) -> None:
        if topic not in self._ids and len(self._ids) >= TOPICS_NOTED:
            self._ids.clear()
        self._ids[topic] = topic_id
