"""The parts of one follower's cursor, kept so that only changed parts are encoded again."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH, MessageIds, absent_entry, entry_again, head_of_entry, place_in, text_of
from .wanted_start import Resumed, epoch_named, offset_named, partitions_named, since_named

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from ...chat.resume_cursor import TopicOffsets
    from ..log.follower import Follower, LogCursor
    from .followed_topic import FollowedTopic


NONE_KEPT: Mapping[str, TopicOffsets] = MappingProxyType({})


class CursorParts:
    """A cursor in parts. The owner reports movements, and forgets the parts when it does not know them.

    Stale parts still make a cursor: what was followed when they were made, with later movements. Until new parts can be made,
    message ids are appended to it, as a client does; a client that resumes with it receives everything else that is new. Before parts
    are made for the first time, message ids are appended to the cursor that the client resumed with.

    Args:
        begun_with: that cursor, as text; "" if there is none.

    Attributes:
        versions: the topics' versions when this was made; empty if it is stale.
    """

    __slots__ = ("_begun_with", "_indices", "_moved", "_parts", "versions")

    def __init__(self, begun_with: str = "") -> None:
        self.versions: Sequence[int] = ()
        self._begun_with = begun_with
        self._parts: list[bytes] = []
        self._indices: dict[PartitionKey, int] = {}
        self._moved: dict[PartitionKey, tuple[int, int]] = {}  # positions and epochs of partitions that were added since this was made

    def make(
        self,
        head: bytes,
        followed_topics: Mapping[str, FollowedTopic],
        follower: Follower,
        unsaid: Container[str],
        kept: Mapping[str, TopicOffsets] = NONE_KEPT,
        *,
        there: Callable[[str], int],
    ) -> None:
        """Make the parts from a cursor's head and a follower's positions in the topics it follows.

        A partition without a leader has no log yet; the follower's start gives its position. For an absent topic, the client's earlier
        position is repeated, so that a gap is reported once a topic of that name exists again.

        Args:
            head: by `head_of_cursor`.
            followed_topics: by their names.
            follower: whose cursor it is.
            unsaid: absent topics whose subscriptions say themselves where they begin.
            kept: where the client is in topics that are not followed; repeated as they are.
            there: how many partitions a topic is known to have.
        """
        self.versions = [followed.version for followed in followed_topics.values()]
        self._begun_with = ""
        self._parts = [head, *(entry_again(topic, entry) for topic, entry in kept.items())]
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
            partitions = max(max(logs) + 1, partitions_named(start, followed.topic_id), there(topic))
            self._parts.append(head_of_entry(topic, followed.topic_id, partitions))
            for partition in range(partitions):
                log = logs.get(partition)
                if log is None:
                    key = PartitionKey(topic, followed.topic_id, partition)
                    offset = offset_named(start, key)
                    since = epoch_named(start, key) if offset is not None else since_named(start, key, follower.joined_ms)
                    self._parts.append(place_in(offset, since))
                    continue
                cursor = follower.cursors.get(log.key)
                if cursor is not None:
                    self._indices[log.key] = len(self._parts)
                self._parts.append(place_in(None, NO_EPOCH) if cursor is None else place_in(cursor.position, cursor.epoch))

    def move(self, cursor: LogCursor) -> None:
        """Note that a cursor has moved."""
        key, position = cursor.log.key, cursor.position
        index = self._indices.get(key)
        if index is not None:
            self._parts[index] = place_in(position, cursor.epoch)
        elif position:
            self._moved[key] = position, cursor.epoch

    @property
    def continues(self) -> bool:
        """Whether parts were never made, so that only the cursor that the client resumed with, if any, can be continued."""
        return not self._parts

    def forget(self) -> None:
        """Mark the parts as stale: they are made again before the next read, if possible."""
        self.versions = ()

    def text(self, head: bytes) -> str:
        """Return the cursor with another head."""
        self._parts[0] = head
        return text_of(b"".join(self._parts))

    def stale_text(self) -> str | None:
        """Return the cursor of stale parts, or the one that the client resumed with, with later movements; None if there is neither."""
        if not self._parts and not self._begun_with:
            return None
        ids = [MessageIds(*key).of(position - 1, epoch).decode() for key, (position, epoch) in self._moved.items()]
        return ".".join([self._begun_with or text_of(b"".join(self._parts)), *ids])
