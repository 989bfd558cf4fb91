"""The followed topics, and what the Tail reports about them.

It owns the logs. An event changes a topic's logs at once, and a walk then notifies the followers. At the walk's checkpoints,
followers may join, leave and rejoin, logs may grow, topics and logs may be lost or found, and the topic may be unfollowed. So a
walk visits the followers that existed at the event, and does what each still needs: one that left has no cursor, and one that
joined later got its cursors from the current logs. A follower counts as not started until the walk reaches it, so no cursor is
sent that would skip messages.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...chat.loss_cause import LossCause
from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import NO_EPOCH
from ..log.partition_log import PartitionLog
from ..ports import NO_EPOCHS
from .followed_topic import FollowedTopic
from .starts import Starts
from .walks import Walks
from .wanted_start import FROM_ZERO, AtOffsets, Resumed, is_of, offsets_due

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from ..log.fan_out import FanOut
    from ..log.follower import Follower
    from ..log.memory import Memory
    from ..records.batch import Batch
    from .offset_queries import OffsetQueries
    from .walks import Walk
    from .wanted_start import Start

    Starting = Mapping[Follower, Start]


class FollowedTopics:
    """Followers follow and unfollow topics here; as the `TailListener` it receives the Tail's reports.

    Args:
        fanout: offers new messages of the logs.
        offsets: asks brokers for start offsets.
        memory: counts what the logs hold.

    Attributes:
        starts: gives the followers their cursors.
        walks: notify the followers of events.
    """

    def __init__(self, *, fanout: FanOut, offsets: OffsetQueries, memory: Memory) -> None:
        self.starts = Starts(offsets, memory, self._wants)
        self.walks = Walks()
        self._fanout = fanout
        self._memory = memory
        self._topics: dict[str, FollowedTopic] = {}
        self._named_absent: set[str] = set()  # topics followed by name that are not known to exist

    def __len__(self) -> int:
        """How many topics are followed, absent ones included."""
        return len(self._topics)

    def __getitem__(self, topic: str) -> FollowedTopic:
        """Return a followed topic; raise KeyError if it is not followed."""
        return self._topics[topic]

    def get(self, topic: str) -> FollowedTopic | None:
        """Return a topic if it is followed."""
        return self._topics.get(topic)

    @property
    def partitions(self) -> int:
        """How many partitions are followed."""
        return sum(len(followed.logs) for followed in self._topics.values())

    def is_there(self, topic: str) -> bool:
        """Whether a topic is followed and known to exist."""
        followed = self._topics.get(topic)
        return followed is not None and bool(followed.topic_id)

    def named_absent(self, topics: Collection[str]) -> int:
        """Return how many topics not known to exist would be followed by name if a follower named `topics`."""
        more = {topic for topic in topics if not self.is_there(topic)} - self._named_absent
        return len(self._named_absent) + len(more)

    def pin(self, topic: str) -> None:
        """Follow `topic` even without followers, so that new ones need not ask a broker."""
        self._followed(topic).pinned = True

    def follow(self, follower: Follower, topic: str, start: Start, *, by_name: bool) -> bool:
        """Have `follower` follow a topic; returns False if it already does.

        Args:
            follower: the follower.
            topic: the topic.
            start: where it begins.
            by_name: whether it names the topic, subscribed or not.
        """
        followed = self._followed(topic)
        if follower in followed.followers:
            return False
        followed.followers[follower] = start
        if by_name:
            followed.named += 1
            if not followed.topic_id:
                self._named_absent.add(topic)
        self.starts.begin(follower, {log: log.head for log in followed.logs.values()}, start)
        return True

    def unfollow(self, follower: Follower, topic: str, *, by_name: bool) -> bool:
        """Remove `follower` from a topic, and unfollow the topic after the last one; returns False if it does not follow it."""
        followed = self._topics.get(topic)
        if followed is None or followed.followers.pop(follower, None) is None:
            return False
        followed.named -= by_name
        if not followed.named:
            self._named_absent.discard(topic)
        for log in (*followed.logs.values(), *followed.closing):
            follower.unfollow(log)
            self.starts.resolve(follower, log.key)
        if not followed.followers and not followed.pinned:
            del self._topics[topic]
            followed.existence_known.set()  # no report will come any more, so no task may wait for one
            self._retire(followed, followed.logs.values())
            for log in followed.closing:
                log.close()
        return True

    # The TailListener

    def topic_opened(
        self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool, epochs: Mapping[int, int] = NO_EPOCHS
    ) -> None:
        """Open logs for these partitions, and give every follower a cursor in each."""
        followed = self._topics[topic]
        followed.topic_id = topic_id
        followed.existence_known.set()
        self._named_absent.discard(topic)
        opened = [
            PartitionLog(PartitionKey(topic, topic_id, partition), start, self._memory, epochs.get(partition, NO_EPOCH))
            for partition, start in starts.items()
        ]
        followed.logs.update({log.key.partition: log for log in opened})
        self._visit_all(followed, partial(self._place, followed, opened, created=created))

    def is_subscribed(self, topic: str) -> bool:
        """Whether a follower follows the topic other than by name."""
        followed = self._topics.get(topic)
        return followed is not None and (followed.pinned or len(followed.followers) > followed.named)

    def topic_missing(self, topic: str) -> None:
        """Note that the topic does not exist; it stays followed."""
        self._topics[topic].existence_known.set()
        self._visit_all(self._topics[topic], _nothing)

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """Close the logs of a topic that no longer exists."""
        followed = self._topics[topic]
        lost, followed.logs = list(followed.logs.values()), {}
        followed.topic_id = ""
        if followed.named:
            self._named_absent.add(topic)
        self._retire(followed, lost)
        self._visit_all(followed, partial(self._displace, followed, topic, topic_id, lost, dict(followed.followers)), close=lost)

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """Append to a log, and have the fan-out offer the new messages."""
        log = self._topics[key.topic].logs[key.partition]
        for batch in batches:
            log.append(batch)
        self._fanout.changed(log)

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause, *, epoch: int = NO_EPOCH) -> None:
        """Start the log over, and move every cursor to where it can continue."""
        followed = self._topics[key.topic]
        old = followed.logs[key.partition]
        new = followed.logs[key.partition] = PartitionLog(key, first_left, self._memory, epoch)
        self._retire(followed, [old])
        self._visit_all(followed, partial(self._move, followed, old, new, cause), close=[old])

    # The walks' work at each follower; nothing else runs between two `yield`s.

    def _visit_all(
        self, followed: FollowedTopic, visit: Callable[[Follower], Iterator[None]], *, close: Sequence[PartitionLog] = ()
    ) -> None:
        """Begin a walk over all current followers of a topic; after it, release logs without cursors."""

        def end(walk: Walk) -> None:
            for log in close:
                followed.closing.remove(log)
                log.close()
            followed.walks.remove(walk)

        followed.changed()
        followed.walks.append(self.walks.begin(followed.followers, visit, then=end))

    def _place(self, followed: FollowedTopic, opened: Sequence[PartitionLog], follower: Follower, *, created: bool) -> Iterator[None]:
        """Give a follower its cursors in logs that were opened."""
        start = followed.followers.get(follower)
        if start is not None:
            # A log's start was its head when it was opened: everything since is due.
            wanted = [log for log in opened if followed.logs.get(log.key.partition) is log and not self.starts.is_placed(follower, log)]
            begin = FROM_ZERO if created and not isinstance(start, Resumed | AtOffsets) else start
            self.starts.begin(follower, {log: log.start for log in wanted}, begin)
        yield

    def _displace(
        self, followed: FollowedTopic, topic: str, topic_id: str, lost: Sequence[PartitionLog], starts: Starting, follower: Follower
    ) -> Iterator[None]:
        """Remove a follower's cursors in logs of a lost topic, and report the loss, even if it had not begun yet."""
        start, begun = starts.get(follower), False
        due = {} if start is None or followed.followers.get(follower) is not start else offsets_due(start, topic, topic_id)
        for log in lost:
            cursor = follower.cursors.get(log.key)
            if cursor is not None and cursor.log is log:
                begun = True
                due.pop(log.key, None)
                follower.on_gap(log.key, cursor.position, 0, LossCause.RECREATED)
                follower.unfollow(log)
            self.starts.resolve(follower, log.key)
            yield
        if start is not None and followed.followers.get(follower) is start:
            for key, offset in due.items():
                follower.on_gap(key, offset, 0, LossCause.RECREATED)
            if begun or is_of(start, topic_id):
                followed.followers[follower] = FROM_ZERO  # otherwise it has begun nowhere, and may be of the next topic

    def _move(self, followed: FollowedTopic, old: PartitionLog, new: PartitionLog, cause: LossCause, follower: Follower) -> Iterator[None]:
        """Move a follower's cursor from a log to the one that replaces it."""
        start, cursor = followed.followers.get(follower), follower.cursors.get(new.key)
        if start is not None and cursor is not None and cursor.log is old:
            position = cursor.position
            begin = min(position, new.start) if cause is LossCause.TRUNCATED else new.start
            follower.unfollow(old)
            if begin != position:
                follower.on_gap(new.key, position, begin, cause)
            follower.follow(new, begin, afresh=True)
        elif start is not None and followed.logs.get(new.key.partition) is new and not self.starts.is_placed(follower, new):
            self.starts.resolve(follower, new.key)  # its start was not fixed yet
            self.starts.begin(follower, {new: new.start}, start)
        yield

    # Inside

    def _followed(self, topic: str) -> FollowedTopic:
        followed = self._topics.get(topic)
        if followed is None:
            followed = self._topics[topic] = FollowedTopic()
        return followed

    def _wants(self, follower: Follower, log: PartitionLog) -> bool:
        """Whether `follower` follows `log`, which is not closed."""
        followed = self._topics.get(log.key.topic)
        return followed is not None and follower in followed.followers and followed.logs.get(log.key.partition) is log

    def _retire(self, followed: FollowedTopic, logs: Iterable[PartitionLog]) -> None:
        """Stop offering from closed logs, and stop asking about them."""
        for log in logs:
            self._fanout.forget(log)
            self.starts.forget(log.key)
            followed.closing.append(log)


def _nothing(follower: Follower) -> Iterator[None]:
    """Visit a follower that need only be woken."""
    return iter(())
