"""Which live session follows which topic; first in and last out move the Tail.

It owns the logs: the Tail tells it of topics and records (`TailListener`), and it gives the sessions their cursors. The
order that every start rests on: who listens is registered first, then what is there is asked for.

What happens to a topic changes its logs at once, and is then carried to its followers by a walk that shares the loop, one walk
after the other. At its checkpoints sessions join, leave and come again, logs get more, topics and logs are lost or found, and the
whole topic may be followed no more. So a walk goes over those who followed when it was called for, and does for each what is still
to be done: one that left has no cursor, one that joined since has got its own from the logs as they are now. Until it has come to a
session, that one has not `started`: no cursor is told that would leave out what it is due.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...chat.loss_cause import LossCause
from ...chat.partition_key import PartitionKey
from ...chat.resume_cursor import head_of_cursor
from ...loop_sharing import Turn
from ..log.partition_log import PartitionLog
from .cursor_parts import CursorParts
from .followed_topic import FollowedTopic, Walk
from .start_resolution import StartResolution
from .starts import FROM_ZERO, AtOffsets, Latest, Resumed, Since, some_seconds_ago

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ...chat.names import ChatNames
    from ..log.fan_out import FanOut
    from ..log.memory import Memory
    from ..ports import SubscriptionChange, Tail
    from ..records.batch import Batch
    from .member import Member
    from .offset_queries import OffsetQueries
    from .starts import Start


class Audience:
    """The live sessions, and the topics that they follow.

    Args:
        names: chat <-> topic.
        fanout: is told of logs with news.
        offsets: asks for the starts that take a broker to tell.
        memory: where the logs count what they hold.
    """

    def __init__(
        self,
        *,
        names: ChatNames,
        fanout: FanOut,
        offsets: OffsetQueries,
        memory: Memory,
    ) -> None:
        self._names = names
        self._fanout = fanout
        self._start_resolution = StartResolution(offsets, self._wants)
        self._memory = memory
        self._followed: dict[str, FollowedTopic] = {}
        self._by_user: dict[str | None, dict[Member, list[str]]] = {}  # username -> session -> the topics that it follows
        self._named_absent: set[str] = set()  # topics that are not there, or not yet known to be, and that some session names
        self._early: dict[Member, Since] = {}
        self._walks: deque[Iterator[None]] = deque()
        self._walk_wanted = trio.Event()
        self._tail: Tail
        self._chats_of: Callable[[str], Mapping[str, SubscriptionChange]]

    def attach(self, tail: Tail, chats_of: Callable[[str], Mapping[str, SubscriptionChange]]) -> None:
        """Name those that in turn were made with this as their listener.

        Args:
            tail: is told which topics to follow.
            chats_of: what a user follows now, the defaults included.
        """
        self._tail = tail
        self._chats_of = chats_of

    async def run(self) -> None:
        """Carry to the sessions what happens to their topics, in its order, until cancelled."""
        while True:
            turn = Turn()
            while self._walks:
                for _ in self._walks[0]:
                    await turn.share()
                self._walks.popleft()
            self._walk_wanted = trio.Event()
            await self._walk_wanted.wait()

    @property
    def sessions(self) -> int:
        """How many live sessions there are."""
        return sum(map(len, self._by_user.values()))

    @property
    def topics(self) -> int:
        """How many topics are followed, absent ones included."""
        return len(self._followed)

    @property
    def partitions(self) -> int:
        """How many partitions are followed."""
        return sum(len(followed.logs) for followed in self._followed.values())

    def named_absent(self, chats: Iterable[str]) -> int:
        """Return how many topics that do not exist, or are not known to, would be followed by name if a session named `chats`."""
        more = {topic for topic in map(self._names.topic, chats) if not self._is_there(topic)} - self._named_absent
        return len(self._named_absent) + len(more)

    def pin(self, topic: str) -> None:
        """Follow `topic` also while nobody is here, so that who comes need not ask a broker."""
        self._followed_topic(topic).pinned = True

    @contextmanager
    def joined(self, session: Member, *, known: bool) -> Iterator[None]:
        """Have `session` follow what its user follows, or the chats that it names, for as long as the block lasts.

        Args:
            session: who comes.
            known: what users follow has been read; otherwise `subscriptions_read` will tell.
        """
        user = None if session.only else session.username  # what changes for a user is nothing to who names its chats
        sessions = self._by_user.setdefault(user, {})
        sessions[session] = []
        if not known:
            self._early[session] = some_seconds_ago()
        try:
            changes = self._chats_of(session.username)
            for chat in session.only or changes:
                self._follow(session, self._names.topic(chat), session.start(self._names.topic(chat), changes.get(chat)))
            yield
        finally:
            for topic in tuple(sessions[session]):
                self._unfollow(session, topic)
            self._early.pop(session, None)
            del sessions[session]
            if not sessions:
                del self._by_user[user]
            session.follower.leave()

    async def wait_started(self, session: Member, *, seconds: float) -> None:
        """Wait until it is fixed where `session` begins, at most `seconds`.

        What no broker has told by then begins some seconds before now, as soon as one does: rather early than late.
        """
        followed_topics = [self._followed[topic] for topic in self._topics_of(session)]
        with trio.move_on_after(seconds):
            for followed in followed_topics:
                await followed.existence_known.wait()
                for walk in [walk for walk in followed.walks if session in walk.left]:
                    await walk.done.wait()
            while (pending := self._start_resolution.pending(session)) is not None:
                await pending.resolved.wait()
        now = some_seconds_ago()
        for followed in followed_topics:
            if isinstance(followed.followers.get(session), Latest):
                followed.followers[session] = now

    def has_started(self, session: Member) -> bool:
        """Whether it is fixed where `session` begins in all that it follows."""
        if session in self._early or self._start_resolution.pending(session) is not None:
            return False
        return all(self._followed[topic].has_placed(session) for topic in self._topics_of(session))

    def forget_start(self, session: Member) -> int:
        """Free the cursor after which `session` begins, for it has started; partitions added since begin at 0, as with it.

        Absent topics need theirs: a gap is told when they come. So do partitions that have no leader yet: they are opened later,
        and begin where the cursor says.

        Returns:
            How many bytes of the cursor are needed longer.
        """
        needed = 0
        for topic in self._topics_of(session):
            followed = self._followed[topic]
            start = followed.followers[session]
            if not isinstance(start, Resumed):
                continue
            if followed.logs and not start.entry.names_others(followed.logs):
                followed.followers[session] = FROM_ZERO
            else:
                needed += start.entry.held_bytes
        return needed

    def chats(self, session: Member) -> list[str]:
        """Return the chats that `session` follows, sorted."""
        return sorted(map(self._names.chat, self._topics_of(session)))

    def exists(self, chat: str) -> bool:
        """Whether a chat that somebody follows is known to have a topic."""
        return self._is_there(self._names.topic(chat))

    def log(self, key: PartitionKey) -> PartitionLog | None:
        """Return the log of a partition that somebody follows; None where nobody does."""
        followed = self._followed.get(key.topic)
        found = None if followed is None else followed.logs.get(key.partition)
        return found if found is not None and found.key == key else None

    def logs(self, session: Member, chat: str) -> list[PartitionLog]:
        """Return the logs of a chat that `session` follows, in the order of their partitions; none where it has no topic."""
        followed = self._followed.get(self._names.topic(chat))
        return [] if followed is None or session not in followed.followers else [log for _, log in sorted(followed.logs.items())]

    def cursor(self, session: Member, *, cluster: bytes | None, subscriptions: int, parts: CursorParts | None = None) -> str | None:
        """Return the text that says up to where `session` has had everything; None while that is not fixed, and never was.

        Args:
            session: whose.
            cluster: as `cluster_mark` says it; None where it is not known.
            subscriptions: up to where the subscriptions topic has been read; `NOT_KNOWN` where that is not known.
            parts: kept by the session from one text to the next; None: it keeps none.
        """
        head = head_of_cursor(cluster, subscriptions, complete=not session.only)
        topics, parts = self._topics_of(session), parts or CursorParts()
        # Each version is another one, so equal ones say that all is as it was when the parts were made: it had started then.
        if not topics or parts.versions != [self._followed[topic].version for topic in topics]:
            if not self.has_started(session):
                return parts.stale_text()
            unsaid = () if session.only else self._begun_by_record(session.username, subscriptions)
            parts.make(head, {topic: self._followed[topic] for topic in topics}, session, unsaid)
        return parts.text(head)

    async def subscriptions_read(self) -> None:
        """Have those who came before the subscriptions were read follow theirs, from some seconds before they came."""
        turn = Turn()
        while self._early:  # who leaves while others have their turn takes itself out
            session, since = self._early.popitem()
            for chat, change in self._chats_of(session.username).items():
                topic = self._names.topic(chat)
                start = session.start(topic, change)
                if not session.only:
                    self._follow(session, topic, since if isinstance(start, Latest) else start)
            await turn.share()

    async def user_changed(self, change: SubscriptionChange) -> None:
        """Have the live sessions of a user follow what was subscribed, from where it was, and leave what was not.

        What everybody follows nobody leaves: another instance may have other defaults, or the log be older than ours.

        Called for one change at a time, when `chats_of` has it; not to be cancelled. Sessions that come while others have their
        turn know the change already, and those that leave have nothing to do with it.
        """
        topic = self._names.topic(change.chat)
        if topic in self._followed and self._followed[topic].pinned:
            return
        turn = Turn()
        for session in list(self._by_user.get(change.username, ())):
            if session not in self._by_user.get(change.username, ()):
                continue
            if change.subscribed == (topic in self._followed and session in self._followed[topic].followers):
                continue  # it came when `chats_of` had the change already, and was greeted with it
            if change.subscribed:
                self._follow(session, topic, AtOffsets(change.topic_id, change.starts))
                session.on_subscribed(change)
            else:
                session.on_unsubscribed(change.chat, self.positions(session, change.chat))
                self._unfollow(session, topic)
            await turn.share()

    def positions(self, session: Member, chat: str) -> dict[int, int]:
        """Return partition -> position of `session` in a chat, where that is fixed."""
        cursors = {log.key.partition: session.follower.cursors.get(log.key) for log in self.logs(session, chat)}
        return {partition: cursor.position for partition, cursor in cursors.items() if cursor is not None}

    # The TailListener

    def topic_opened(self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool) -> None:
        """Open logs for these partitions, and give every follower a cursor in each."""
        followed = self._followed[topic]
        followed.topic_id = topic_id
        followed.existence_known.set()
        self._named_absent.discard(topic)
        opened = [PartitionLog(PartitionKey(topic, topic_id, partition), start, self._memory) for partition, start in starts.items()]
        followed.logs.update({log.key.partition: log for log in opened})
        self._visit_all(followed, partial(self._place, followed, opened, created=created))

    def is_subscribed(self, topic: str) -> bool:
        """See `TailListener`."""
        followed = self._followed.get(topic)
        return followed is not None and (followed.pinned or len(followed.followers) > followed.named)

    def topic_missing(self, topic: str) -> None:
        """There is no such topic; it is followed all the same."""
        self._followed[topic].existence_known.set()
        self._visit_all(self._followed[topic], _nothing)

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """Close the logs of a topic that is no more."""
        followed = self._followed[topic]
        lost, followed.logs = list(followed.logs.values()), {}
        followed.topic_id = ""
        if followed.named:
            self._named_absent.add(topic)
        followed.followers = dict.fromkeys(followed.followers, FROM_ZERO)
        self._retire(followed, lost)
        self._visit_all(followed, partial(self._displace, lost), close=lost)

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """Append to a log, and have it walked."""
        log = self._followed[key.topic].logs[key.partition]
        for batch in batches:
            log.append(batch)
        self._fanout.changed(log)

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause) -> None:
        """Begin the log anew, and move every cursor to where it can go on."""
        followed = self._followed[key.topic]
        old = followed.logs[key.partition]
        new = followed.logs[key.partition] = PartitionLog(key, first_left, self._memory)
        self._retire(followed, [old])
        self._visit_all(followed, partial(self._move, followed, old, new, cause), close=[old])

    # What the walks do, at each session; between two `yield`s nothing else runs.

    def _visit_all(self, followed: FollowedTopic, visit: Callable[[Member], Iterator[None]], *, close: Sequence[PartitionLog] = ()) -> None:
        """Have a walk over all who follow a topic now; then let go of logs that nobody has a cursor in any more."""
        followed.changed()
        walk = Walk(followed.followers)
        followed.walks.append(walk)
        self._walks.append(self._walk(followed, walk, list(followed.followers), visit, close))
        self._walk_wanted.set()

    def _walk(
        self,
        followed: FollowedTopic,
        walk: Walk,
        sessions: Sequence[Member],
        visit: Callable[[Member], Iterator[None]],
        close: Sequence[PartitionLog],
    ) -> Iterator[None]:
        for session in sessions:
            yield from visit(session)
            walk.left.discard(session)
            session.follower.wake()
            yield
        for log in close:
            followed.closing.remove(log)
            log.close()
        followed.walks.remove(walk)
        walk.done.set()

    def _place(self, followed: FollowedTopic, opened: Sequence[PartitionLog], session: Member, *, created: bool) -> Iterator[None]:
        """Give a session its cursors in logs that were opened."""
        for log in opened:
            begin = followed.followers.get(session)
            if begin is not None and followed.logs.get(log.key.partition) is log and not self._start_resolution.is_placed(session, log.key):
                # Where the log starts is its head as it was: what has come since is due.
                self._start_resolution.begin(session, log, FROM_ZERO if created and not isinstance(begin, Resumed) else begin, log.start)
            yield

    def _displace(self, lost: Sequence[PartitionLog], session: Member) -> Iterator[None]:
        """Take a session's cursors in logs of a topic that is no more, and tell it."""
        for log in lost:
            cursor = session.follower.cursors.get(log.key)
            if cursor is not None and cursor.log is log:
                session.follower.on_gap(log.key, cursor.position, 0, LossCause.RECREATED)
                session.follower.unfollow(log)
            self._start_resolution.resolve(session, log.key)
            yield

    def _move(self, followed: FollowedTopic, old: PartitionLog, new: PartitionLog, cause: LossCause, session: Member) -> Iterator[None]:
        """Move a session's cursor from a log to the one that was begun in its place."""
        start, cursor = followed.followers.get(session), session.follower.cursors.get(new.key)
        if start is not None and cursor is not None and cursor.log is old:
            position = cursor.position
            begin = min(position, new.start) if cause is LossCause.TRUNCATED else new.start
            session.follower.unfollow(old)
            if begin != position:
                session.follower.on_gap(new.key, position, begin, cause)
            session.follower.follow(new, begin, afresh=True)
        elif start is not None and not self._start_resolution.is_placed(session, new.key):  # it was not fixed yet where it begins
            self._start_resolution.begin(session, new, start, new.start)
        yield

    # Inside

    def _is_there(self, topic: str) -> bool:
        followed = self._followed.get(topic)
        return followed is not None and bool(followed.topic_id)

    def _followed_topic(self, topic: str) -> FollowedTopic:
        followed = self._followed.get(topic)
        if followed is None:
            followed = self._followed[topic] = FollowedTopic()
            self._tail.follow(topic)
        return followed

    def _follow(self, session: Member, topic: str, start: Start) -> None:
        followed = self._followed_topic(topic)
        if session in followed.followers:
            return
        self._topics_of(session).append(topic)
        followed.followers[session] = start
        if session.only:
            followed.named += 1
            if not followed.topic_id:
                self._named_absent.add(topic)
        for log in followed.logs.values():
            self._start_resolution.begin(session, log, start, log.head)

    def _begun_by_record(self, username: str, subscriptions: int) -> set[str]:
        """Return the topics of a user that did not exist when they were subscribed to, by records below an offset."""
        changes = self._chats_of(username).items()
        return {self._names.topic(chat) for chat, change in changes if not change.topic_id and 0 <= change.offset < subscriptions}

    def _unfollow(self, session: Member, topic: str) -> None:
        followed = self._followed.get(topic)
        if followed is None or followed.followers.pop(session, None) is None:
            return
        self._topics_of(session).remove(topic)
        followed.named -= bool(session.only)
        if not followed.named:
            self._named_absent.discard(topic)
        for log in (*followed.logs.values(), *followed.closing):
            session.follower.unfollow(log)
            self._start_resolution.resolve(session, log.key)
        if not followed.followers and not followed.pinned:
            self._tail.unfollow(topic)
            del self._followed[topic]
            followed.existence_known.set()  # nobody will tell any more, and nobody has to wait for it
            self._retire(followed, followed.logs.values())
            for log in followed.closing:
                log.close()

    def _wants(self, session: Member, log: PartitionLog) -> bool:
        """Whether `session` follows `log`, and that is not closed."""
        followed = self._followed.get(log.key.topic)
        return followed is not None and session in followed.followers and followed.logs.get(log.key.partition) is log

    def _topics_of(self, session: Member) -> list[str]:
        return self._by_user[None if session.only else session.username][session]

    def _retire(self, followed: FollowedTopic, logs: Iterable[PartitionLog]) -> None:
        """Offer nothing more of logs that are no more, and ask nothing more about them."""
        for log in logs:
            self._fanout.forget(log)
            self._start_resolution.forget(log.key)
            followed.closing.append(log)


def _nothing(session: Member) -> Iterator[None]:
    """Visit a session that has only to look again."""
    return iter(())
