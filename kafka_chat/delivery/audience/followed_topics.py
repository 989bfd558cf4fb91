"""The topics that somebody follows, and what the Tail tells of them.

It owns the logs. What happens to a topic changes its logs at once, and is then carried to its followers by a walk. At the walk's
checkpoints followers join, leave and come again, logs get more, topics and logs are lost or found, and the whole topic may be
followed no more. So a walk goes over those who followed when it was called for, and does for each what is still to be done: one that
left has no cursor, one that joined since has got its own from the logs as they are now. Until it has come to a follower, that one
has not started: no cursor is told that would leave out what it is due.
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
from .wanted_start import FROM_ZERO, Resumed, offsets_due

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
    """Followers join and leave topics here, and the Tail tells what becomes of these: it is the `TailListener`.

    Args:
        fanout: is told of logs with news.
        offsets: asks for the starts that take a broker to tell.
        memory: where the logs count what they hold.

    Attributes:
        starts: gives the followers their cursors.
        walks: carry to them what happens.
    """

    def __init__(self, *, fanout: FanOut, offsets: OffsetQueries, memory: Memory) -> None:
        self.starts = Starts(offsets, memory, self._wants)
        self.walks = Walks()
        self._fanout = fanout
        self._memory = memory
        self._topics: dict[str, FollowedTopic] = {}
        self._named_absent: set[str] = set()  # topics that are not there, or not yet known to be, and that some follower names

    def __len__(self) -> int:
        """How many topics are followed, absent ones included."""
        return len(self._topics)

    def __getitem__(self, topic: str) -> FollowedTopic:
        """Return a topic that is followed; KeyError where it is not."""
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
        """Return how many topics that do not exist, or are not known to, would be followed by name if somebody named `topics`."""
        more = {topic for topic in topics if not self.is_there(topic)} - self._named_absent
        return len(self._named_absent) + len(more)

    def pin(self, topic: str) -> None:
        """Follow `topic` also while nobody does, so that who comes need not ask a broker."""
        self._followed(topic).pinned = True

    def follow(self, follower: Follower, topic: str, start: Start, *, by_name: bool) -> bool:
        """Have `follower` follow a topic; False where it does already.

        Args:
            follower: who.
            topic: which.
            start: where it begins.
            by_name: it names the topic, subscribed or not.
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
        """Have `follower` leave a topic, which is followed no more where that was the last one; False where it does not follow it."""
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
            followed.existence_known.set()  # nobody will tell any more, and nobody has to wait for it
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
        """See `TailListener`."""
        followed = self._topics.get(topic)
        return followed is not None and (followed.pinned or len(followed.followers) > followed.named)

    def topic_missing(self, topic: str) -> None:
        """There is no such topic; it is followed all the same."""
        self._topics[topic].existence_known.set()
        self._visit_all(self._topics[topic], _nothing)

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """Close the logs of a topic that is no more."""
        followed = self._topics[topic]
        lost, followed.logs = list(followed.logs.values()), {}
        followed.topic_id = ""
        if followed.named:
            self._named_absent.add(topic)
        self._retire(followed, lost)
        self._visit_all(followed, partial(self._displace, followed, topic, topic_id, lost, dict(followed.followers)), close=lost)

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """Append to a log, and have it walked."""
        log = self._topics[key.topic].logs[key.partition]
        for batch in batches:
            log.append(batch)
        self._fanout.changed(log)

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause, *, epoch: int = NO_EPOCH) -> None:
        """Start over, and move every cursor to where it can go on."""
        followed = self._topics[key.topic]
        old = followed.logs[key.partition]
        new = followed.logs[key.partition] = PartitionLog(key, first_left, self._memory, epoch)
        self._retire(followed, [old])
        self._visit_all(followed, partial(self._move, followed, old, new, cause), close=[old])

    # What the walks do, at each follower; between two `yield`s nothing else runs.

    def _visit_all(
        self, followed: FollowedTopic, visit: Callable[[Follower], Iterator[None]], *, close: Sequence[PartitionLog] = ()
    ) -> None:
        """Have a walk over all who follow a topic now; then release logs that nobody has a cursor in any more."""

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
            # Where a log starts is its head as it was: what has come since is due.
            wanted = [log for log in opened if followed.logs.get(log.key.partition) is log and not self.starts.is_placed(follower, log)]
            begin = FROM_ZERO if created and not isinstance(start, Resumed) else start
            self.starts.begin(follower, {log: log.start for log in wanted}, begin)
        yield

    def _displace(
        self, followed: FollowedTopic, topic: str, topic_id: str, lost: Sequence[PartitionLog], starts: Starting, follower: Follower
    ) -> Iterator[None]:
        """Take a follower's cursors in logs of a topic that is no more, and tell it; also of what it was to get and had not begun."""
        start = starts.get(follower)
        due = {} if start is None or followed.followers.get(follower) is not start else offsets_due(start, topic, topic_id)
        for log in lost:
            cursor = follower.cursors.get(log.key)
            if cursor is not None and cursor.log is log:
                due.pop(log.key, None)
                follower.on_gap(log.key, cursor.position, 0, LossCause.RECREATED)
                follower.unfollow(log)
            self.starts.resolve(follower, log.key)
            yield
        if start is not None and followed.followers.get(follower) is start:
            for key, offset in due.items():
                follower.on_gap(key, offset, 0, LossCause.RECREATED)
            followed.followers[follower] = FROM_ZERO

    def _move(self, followed: FollowedTopic, old: PartitionLog, new: PartitionLog, cause: LossCause, follower: Follower) -> Iterator[None]:
        """Move a follower's cursor from a log to the one that was begun in its place."""
        start, cursor = followed.followers.get(follower), follower.cursors.get(new.key)
        if start is not None and cursor is not None and cursor.log is old:
            position = cursor.position
            begin = min(position, new.start) if cause is LossCause.TRUNCATED else new.start
            follower.unfollow(old)
            if begin != position:
                follower.on_gap(new.key, position, begin, cause)
            follower.follow(new, begin, afresh=True)
        elif start is not None and followed.logs.get(new.key.partition) is new and not self.starts.is_placed(follower, new):
            self.starts.resolve(follower, new.key)  # it was not fixed yet where it begins
            self.starts.begin(follower, {new: new.start}, start)
        yield

    # Inside

    def _followed(self, topic: str) -> FollowedTopic:
        followed = self._topics.get(topic)
        if followed is None:
            followed = self._topics[topic] = FollowedTopic()
        return followed

    def _wants(self, follower: Follower, log: PartitionLog) -> bool:
        """Whether `follower` follows `log`, and that is not closed."""
        followed = self._topics.get(log.key.topic)
        return followed is not None and follower in followed.followers and followed.logs.get(log.key.partition) is log

    def _retire(self, followed: FollowedTopic, logs: Iterable[PartitionLog]) -> None:
        """Offer nothing more of logs that are no more, and ask nothing more about them."""
        for log in logs:
            self._fanout.forget(log)
            self.starts.forget(log.key)
            followed.closing.append(log)


def _nothing(follower: Follower) -> Iterator[None]:
    """Visit a follower that has only to look again."""
    return iter(())
