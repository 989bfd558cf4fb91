"""The parts of one follower's cursor, kept so that the text after a move costs what has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH, MessageIds, absent_entry, entry_again, head_of_entry, place_in, text_of
from .wanted_start import Resumed, epoch_named, offset_named, partitions_named

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from ..log.follower import Follower, LogCursor
    from .followed_topic import FollowedTopic


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
        self._moved: dict[
            PartitionKey, tuple[int, int]
        ] = {}  # positions and epochs of partitions that were not followed when this was made

    def make(self, head: bytes, followed_topics: Mapping[str, FollowedTopic], follower: Follower, unsaid: Container[str]) -> None:
        """Make it of a cursor's head, and of where a follower is in the topics that it follows.

        A partition that has no leader yet has no log: the follower will begin there where its start says. Of an absent topic in which
        its client has been, what it came with is said again: a gap is to be told when there is another one.

        Args:
            head: by `head_of_cursor`.
            followed_topics: by their names.
            follower: whose cursor it is.
            unsaid: absent topics whose subscriptions say themselves where they begin.
        """
        self.versions = [followed.version for followed in followed_topics.values()]
        self._parts = [head]
        self._indices = {}
        self._moved = {}
        for topic, followed in followed_topics.items():
            logs = followed.logs
            start = followed.followers.get(follower)
            if not logs:
                if isinstance(start, Resumed) and start.entry.identity is not None:
                    self._parts.append(entry_again(topic, start.entry))
                elif topic not in unsaid:
                    self._parts.append(absent_entry(topic))
                continue
            partitions = max(max(logs) + 1, partitions_named(start, followed.topic_id))
            self._parts.append(head_of_entry(topic, followed.topic_id, partitions))
            for partition in range(partitions):
                log = logs.get(partition)
                if log is None:
                    key = PartitionKey(topic, followed.topic_id, partition)
                    self._parts.append(place_in(offset_named(start, key), epoch_named(start, key)))
                    continue
                cursor = follower.cursors.get(log.key)
                if cursor is not None:
                    self._indices[log.key] = len(self._parts)
                self._parts.append(place_in(None, NO_EPOCH) if cursor is None else place_in(cursor.position, cursor.epoch))

    def move(self, cursor: LogCursor) -> None:
        """Take note that a cursor is somewhere else now."""
        key, position = cursor.log.key, cursor.position
        index = self._indices.get(key)
        if index is not None:
            self._parts[index] = place_in(position, cursor.epoch)
        elif position:
            self._moved[key] = position, cursor.epoch

    def forget(self) -> None:
        """Make it again before it is read next, if that can be."""
        self.versions = ()

    def text(self, head: bytes) -> str:
        """Return the cursor with another head."""
        self._parts[0] = head
        return text_of(b"".join(self._parts))

    def stale_text(self) -> str | None:
        """Return the cursor as it was when it was made, moved since; None where it never was."""
        if not self._parts:
            return None
        ids = [MessageIds(*key).of(position - 1, epoch).decode() for key, (position, epoch) in self._moved.items()]
        return ".".join([text_of(b"".join(self._parts)), *ids])
