"""Which live session follows which topic; first in and last out move the Tail.

It owns the logs: the Tail tells it of topics and records (`TailListener`), and it gives the sessions their cursors. The
order that every start rests on: who listens is registered first, then what is there is asked for.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...chat.cursor import absent_entry, head_of_cursor, text_of, topic_entry
from ...chat.loss_cause import LossCause
from ...chat.partition_key import PartitionKey
from ..log.partition_log import PartitionLog
from .followed_topic import FollowedTopic, PendingStarts
from .offset_queries import EARLIEST_TIMESTAMP
from .starts import EARLIER_MS, FROM_ZERO, AtOffsets, Earliest, Latest, Resumed, Rewind, Since, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ...chat.names import ChatNames
    from ..log.fan_out import FanOut
    from ..log.memory import Memory
    from ..ports import SubscriptionChange, Tail
    from ..records.batch import Batch
    from .member import Member
    from .offset_queries import OffsetQueries


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
        self._offsets = offsets
        self._memory = memory
        self._followed: dict[str, FollowedTopic] = {}
        self._by_user: dict[str | None, dict[Member, list[str]]] = {}  # username -> session -> the topics that it follows
        self._early: dict[Member, Since] = {}
        self._pending: dict[Member, PendingStarts] = {}  # those that wait for a broker's answer
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
            self._early[session] = _some_seconds_ago()
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

    async def wait_started(self, session: Member, *, seconds: float) -> None:
        """Wait until it is fixed where `session` begins, at most `seconds`.

        What no broker has told by then begins some seconds before now, as soon as one does: rather early than late.
        """
        followed_topics = [self._followed[topic] for topic in self._topics_of(session)]
        with trio.move_on_after(seconds):
            for followed in followed_topics:
                await followed.existence_known.wait()
            while (pending := self._pending.get(session)) is not None:
                await pending.resolved.wait()
        now = _some_seconds_ago()
        for followed in followed_topics:
            if isinstance(followed.followers.get(session), Latest):
                followed.followers[session] = now

    def has_started(self, session: Member) -> bool:
        """Whether it is fixed where `session` begins in all that it follows."""
        existence_known = all(self._followed[topic].existence_known.is_set() for topic in self._topics_of(session))
        return existence_known and session not in self._early and session not in self._pending

    def forget_start(self, session: Member) -> None:
        """Free the cursor after which `session` begins, for it has started. Absent topics need theirs: a gap is told when they come.

        Partitions that are added to the others begin at 0, as they would with it.
        """
        for topic in self._topics_of(session):
            followed = self._followed[topic]
            if followed.logs and isinstance(followed.followers[session], Resumed):
                followed.followers[session] = FROM_ZERO

    def chats(self, session: Member) -> list[str]:
        """Return the chats that `session` follows, sorted."""
        return sorted(map(self._names.chat, self._topics_of(session)))

    def exists(self, chat: str) -> bool:
        """Whether a chat that somebody follows is known to have a topic."""
        followed = self._followed.get(self._names.topic(chat))
        return followed is not None and bool(followed.topic_id)

    def logs(self, session: Member, chat: str) -> list[PartitionLog]:
        """Return the logs of a chat that `session` follows, in the order of their partitions; none where it has no topic."""
        followed = self._followed.get(self._names.topic(chat))
        return [] if followed is None or session not in followed.followers else [log for _, log in sorted(followed.logs.items())]

    def cursor(self, session: Member, *, cluster: bytes | None, subscriptions: int) -> str | None:
        """Return the text that says up to where `session` has had everything; None while that is not fixed.

        Args:
            session: whose.
            cluster: as `cluster_mark` says it; None where it is not known.
            subscriptions: up to where the subscriptions topic has been read.
        """
        if not self.has_started(session):
            return None
        entries = [head_of_cursor(cluster, subscriptions)]
        for topic in self._topics_of(session):
            followed = self._followed[topic]
            if followed.logs:
                cursors = {log.key.partition: session.cursors.get(log.key) for log in followed.logs.values()}
                places = [cursors.get(partition) for partition in range(max(followed.logs) + 1)]
                entries.append(topic_entry(topic, followed.topic_id, [None if place is None else place.position for place in places]))
            else:
                entries.append(absent_entry(topic))
        return text_of(b"".join(entries))

    def subscriptions_read(self) -> None:
        """Have those who came before the subscriptions were read follow theirs, from some seconds before they came."""
        early, self._early = self._early, {}
        for session, since in early.items():
            for chat, change in self._chats_of(session.username).items():
                topic = self._names.topic(chat)
                start = session.start(topic, change)
                if not session.only:
                    self._follow(session, topic, since if isinstance(start, Latest) else start)

    def user_changed(self, change: SubscriptionChange) -> None:
        """Have the live sessions of a user follow what was subscribed, from where it was, and leave what was not.

        What everybody follows nobody leaves: another instance may have other defaults, or the log be older than ours.
        """
        topic = self._names.topic(change.chat)
        if topic in self._followed and self._followed[topic].pinned:
            return
        for session in list(self._by_user.get(change.username, ())):
            if change.subscribed:
                self._follow(session, topic, AtOffsets(change.topic_id, change.starts))
                session.on_subscribed(change)
            else:
                session.on_unsubscribed(change.chat, self.positions(session, change.chat))
                self._unfollow(session, topic)

    def positions(self, session: Member, chat: str) -> dict[int, int]:
        """Return partition -> position of `session` in a chat, where that is fixed."""
        cursors = {log.key.partition: session.cursors.get(log.key) for log in self.logs(session, chat)}
        return {partition: cursor.position for partition, cursor in cursors.items() if cursor is not None}

    # The TailListener

    def topic_opened(self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool) -> None:
        """Open logs for these partitions, and give every follower a cursor in each."""
        followed = self._followed[topic]
        followed.topic_id = topic_id
        followed.existence_known.set()
        for partition, start in starts.items():
            log = PartitionLog(PartitionKey(topic, topic_id, partition), start, self._memory)
            followed.logs[partition] = log
            for session, begin in followed.followers.items():
                self._begin(session, log, FROM_ZERO if created and not isinstance(begin, Resumed) else begin)

    def topic_missing(self, topic: str) -> None:
        """There is no such topic; it is followed all the same."""
        self._followed[topic].existence_known.set()

    def topic_lost(self, topic: str, topic_id: str, cause: LossCause | None) -> None:
        """Close the logs of a topic that is no more."""
        followed = self._followed[topic]
        for log in followed.logs.values():
            for cursor in log.cursors:
                cursor.session.on_gap(log.key, cursor.position, 0, LossCause.RECREATED)
            self._close(log)
        followed.logs.clear()
        followed.topic_id = ""
        followed.followers = dict.fromkeys(followed.followers, FROM_ZERO)

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """Append to a log, and have it walked."""
        log = self._followed[key.topic].logs[key.partition]
        for batch in batches:
            log.append(batch)
        self._fanout.changed(log)

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: LossCause) -> None:
        """Begin the log anew, and move every cursor to where it can go on, in one step."""
        followed = self._followed[key.topic]
        old = followed.logs[key.partition]
        new = followed.logs[key.partition] = PartitionLog(key, first_left, self._memory)
        places = [(cursor.session, cursor.position) for cursor in old.cursors]
        self._close(old)
        for session, position in places:
            begin = min(position, first_left) if cause is LossCause.TRUNCATED else first_left
            if begin != position:
                session.on_gap(key, position, begin, cause)
            session.follow(new, begin, afresh=True)
        for session, start in followed.followers.items():
            if key not in session.cursors:  # it was not fixed yet where it begins
                self._begin(session, new, start)

    # Inside

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
        for log in followed.logs.values():
            self._begin(session, log, start)

    def _unfollow(self, session: Member, topic: str) -> None:
        followed = self._followed.get(topic)
        if followed is None or followed.followers.pop(session, None) is None:
            return
        self._topics_of(session).remove(topic)
        for log in followed.logs.values():
            session.unfollow(log)
            self._start_resolved(session, log.key)
        if not followed.followers and not followed.pinned:
            self._tail.unfollow(topic)
            del self._followed[topic]
            for log in followed.logs.values():
                self._close(log)

    def _topics_of(self, session: Member) -> list[str]:
        return self._by_user[None if session.only else session.username][session]

    def _begin(self, session: Member, log: PartitionLog, start: Start) -> None:
        """Give `session` a cursor in `log`, now or when it is known where."""
        match start:
            case Latest():
                session.follow(log, log.head)
            case Rewind(messages):
                session.follow(log, log.head)
                session.rewind(log, messages)
            case AtOffsets(topic_id, offsets):
                if topic_id not in ("", log.key.topic_id) and log.key.partition in offsets:
                    session.on_gap(log.key, offsets[log.key.partition], 0, LossCause.RECREATED)
                session.follow(log, start.offset(log.key))
            case Since(time_ms):
                self._ask(session, log, time_ms, partial(self._begin_at, session, log, log.head, None))
            case Earliest():
                self._ask(session, log, EARLIEST_TIMESTAMP, partial(self._begin_at, session, log, log.head, None))
            case Resumed():
                self._resume(session, log, start)

    def _resume(self, session: Member, log: PartitionLog, start: Resumed) -> None:
        recreated = start.recreated(log.key)
        if recreated is not None:
            session.on_gap(log.key, recreated, 0, LossCause.RECREATED)
        offset = start.offset(log.key)
        if offset is None:
            self._begin(session, log, start.otherwise)
        elif offset >= log.head or log.batch_at(offset) is not None:
            session.follow(log, offset)
        else:  # is it still there?
            self._ask(session, log, EARLIEST_TIMESTAMP, partial(self._begin_at, session, log, log.head, offset))

    def _ask(self, session: Member, log: PartitionLog, time_ms: int, begin: Callable[[int], None]) -> None:
        """Have `begin` called with the offset of a time; see `OffsetQueries`."""
        self._pending.setdefault(session, PendingStarts()).questions[log.key] = self._offsets.ask(log.key, time_ms, begin)

    def _start_resolved(self, session: Member, key: PartitionKey) -> None:
        """Where `session` begins in a partition is fixed, or wanted no longer."""
        pending = self._pending.get(session)
        if pending is None:
            return
        question = pending.questions.pop(key, None)
        if question is not None:
            question.withdraw()
        if not pending.questions:
            del self._pending[session]
            pending.resolved.set()

    def _begin_at(self, session: Member, log: PartitionLog, head: int, due: int | None, offset: int) -> None:
        """Begin at an offset that a broker told, and not above the head as it was when that was asked.

        Args:
            session: who begins.
            log: where.
            head: as it was.
            due: where its client wants it to begin; then `offset` is the first that is left.
            offset: what the broker told.
        """
        self._start_resolved(session, log.key)
        followed = self._followed.get(log.key.topic)
        if log.key in session.cursors:
            return  # it has left meanwhile, and come again
        if followed is None or session not in followed.followers or followed.logs.get(log.key.partition) is not log:
            return
        begin = min(offset, head) if due is None else max(offset, due)
        if due is not None and begin > due:
            session.on_gap(log.key, due, begin, LossCause.RETENTION)
        session.follow(log, begin)

    def _close(self, log: PartitionLog) -> None:
        for cursor in log.cursors:
            cursor.session.unfollow(log)
        self._fanout.forget(log)
        self._offsets.forget(log.key)
        for session in tuple(self._pending):
            self._start_resolved(session, log.key)
        log.close()


def _some_seconds_ago() -> Since:
    return Since((time.time_ns() // 1_000_000 - EARLIER_MS) // 1000 * 1000)  # whole seconds: five thousand sessions ask as one
