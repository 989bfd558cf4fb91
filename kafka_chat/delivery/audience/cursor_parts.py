"""The parts of one session's cursor, kept so that the text after a move costs what has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import MessageIds, absent_entry, head_of_entry, position_number, text_of
from .starts import offset_named, partitions_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..log.log_cursor import LogCursor
    from .followed_topic import FollowedTopic
    from .member import Member


class CursorParts:
    """A cursor in pieces. Its owner says what has moved, and that it is stale when it does not know.

    Stale parts are still those of a cursor: what was followed when they were made, moved since. Until new ones can be made, it
    goes on with the ids of last messages, as a client makes one; what else is new, the client finds when it comes back with it.

    Attributes:
        versions: of the topics, as they were when this was made; empty where it is stale.
    """

    __slots__ = ("_indices", "_moved", "_parts", "versions")

    def __init__(self) -> None:
        self.versions: Sequence[int] = ()
        self._parts: list[bytes] = []
        self._indices: dict[PartitionKey, int] = {}
        self._moved: dict[PartitionKey, int] = {}  # positions of partitions that were not followed when this was made

    def make(self, head: bytes, followed_topics: Mapping[str, FollowedTopic], session: Member) -> None:
        """Make it of a cursor's head, and of where a session is in the topics that it follows.

        A partition that has no leader yet has no log: the session will begin there where its start says.
        """
        self.versions = [followed.version for followed in followed_topics.values()]
        self._parts = [head]
        self._indices = {}
        self._moved = {}
        for topic, followed in followed_topics.items():
            logs = followed.logs
            if not logs:
                self._parts.append(absent_entry(topic))
                continue
            start = followed.followers.get(session)
            partitions = max(max(logs) + 1, partitions_named(start, followed.topic_id))
            self._parts.append(head_of_entry(topic, followed.topic_id, partitions))
            for partition in range(partitions):
                log = logs.get(partition)
                if log is None:
                    named = offset_named(start, PartitionKey(topic, followed.topic_id, partition))
                    self._parts.append(position_number(named))
                    continue
                cursor = session.cursors.get(log.key)
                if cursor is not None:
                    self._indices[log.key] = len(self._parts)
                self._parts.append(position_number(None if cursor is None else cursor.position))

    def move(self, cursor: LogCursor) -> None:
        """Take note that a cursor is somewhere else now."""
        key, position = cursor.log.key, cursor.position
        index = self._indices.get(key)
        if index is not None:
            self._parts[index] = position_number(position)
        elif position:
            self._moved[key] = position

    def forget(self) -> None:
        """Make it anew before it is read next, if that can be."""
        self.versions = ()

    def text(self, head: bytes) -> str:
        """Return the cursor with another head."""
        self._parts[0] = head
        return text_of(b"".join(self._parts))

    def stale_text(self) -> str | None:
        """Return the cursor as it was when it was made, moved since; None where it never was."""
        if not self._parts:
            return None
        ids = [MessageIds(*key).of(position - 1).decode() for key, position in self._moved.items()]
        return ".".join([text_of(b"".join(self._parts)), *ids])
