"""Which topic a Consumer reads under a name, by its id: librdkafka reads on in a recreated topic, and says so in its log alone."""

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
    """The logger of one Consumer. It notes the ids of topics, and passes on all other lines but those that only this has asked for.

    A Consumer asks for records by the id of their topic, as it knows that from its metadata. It hears of another id before it reads
    anything of that topic, and lines come before records in the queue that it is polled for (tests/edges). Brokers older than 3.1 are asked
    by name: from them records may come before the id.

    Called in the thread that polls the Consumer.

    Args:
        logger: for the other lines.
    """

    def __init__(self, logger: SparingLogger) -> None:
        self._logger = logger
        self._passes_debug = False
        self._ids: dict[str, str] = {}

    def heard(self, properties: Mapping[str, Property]) -> dict[str, Property]:
        """Return the properties of the Consumer: these, and those that let it be heard."""
        asked = properties.get("debug")  # by the operator
        self._passes_debug = bool(asked)
        return {**properties, "logger": self, "debug": f"{asked},metadata" if asked else "metadata"}

    def reads(self, topic: str, topic_id: str) -> bool:
        """Whether the Consumer reads the topic of this id, as far as is known, and not another one of its name."""
        return self._ids.get(topic, topic_id) == topic_id

    def log(self, level: int, template: str, *args: object) -> None:
        """Take a line of librdkafka."""
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
