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

from .batch import Batch, PartitionKey
from .log import PartitionLog
from .positions import EARLIER_MS, LATEST, At, Latest, Since, Start
from .seams import Lost, SubscriptionChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..chat.topics import ChatNames
    from .fanout import FanOut
    from .memory import Memory
    from .positions import TimesResolved
    from .seams import Tail
    from .session import Session


class Feed:
    """A topic that is followed, whether it exists or not.

    Attributes:
        topic_id: of the topic that is there; "" while there is none.
        logs: partition -> its log.
        followers: who follows it, and where that session begins in what is opened from now on.
        pinned: followed also when nobody does.
        looked: set once a broker has told whether the topic exists.
    """

    __slots__ = ("followers", "logs", "looked", "pinned", "topic_id")

    def __init__(self) -> None:
        self.topic_id = ""
        self.logs: dict[int, PartitionLog] = {}
        self.followers: dict[Session, Start] = {}
        self.pinned = False
        self.looked = trio.Event()


class Audience:
    """The live sessions, and the topics that they follow.

    Args:
        names: chat <-> topic.
        fanout: is told of logs with news.
        times: resolves the starts of sessions that were accepted while no broker could be asked.
        memory: where the logs count what they hold.
    """

    def __init__(
        self,
        *,
        names: ChatNames,
        fanout: FanOut,
        times: TimesResolved,
        memory: Memory,
    ) -> None:
        self._names = names
        self._fanout = fanout
        self._times = times
        self._memory = memory
        self._feeds: dict[str, Feed] = {}
        self._by_user: dict[str, dict[Session, list[str]]] = {}  # username -> session -> the topics that it follows
        self._early: dict[Session, Since] = {}
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
        return len(self._feeds)

    @property
    def partitions(self) -> int:
        """How many partitions are followed."""
        return sum(len(feed.logs) for feed in self._feeds.values())

    def pin(self, topic: str) -> None:
        """Follow `topic` also while nobody is here, so that who comes need not ask a broker."""
        self._feed(topic).pinned = True

    @contextmanager
    def joined(self, session: Session, *, known: bool) -> Iterator[None]:
        """Have `session` follow what its user follows, for as long as the block lasts.

        Args:
            session: who comes.
            known: what users follow has been read; otherwise `subscriptions_read` will tell.
        """
        sessions = self._by_user.setdefault(session.username, {})
        sessions[session] = []
        if not known:
            self._early[session] = _some_seconds_ago()
        try:
            for chat in self._chats_of(session.username):
                self._follow(session, self._names.topic(chat), LATEST)
            yield
        finally:
            for topic in tuple(sessions[session]):
                self._unfollow(session, topic)
            self._early.pop(session, None)
            del sessions[session]
            if not sessions:
                del self._by_user[session.username]

    async def settle(self, session: Session, *, seconds: float) -> None:
        """Wait until it is fixed where `session` begins, at most `seconds`.

        What no broker has told by then begins some seconds before now, as soon as one does: rather early than late.
        """
        feeds = [self._feeds[topic] for topic in self._by_user[session.username][session]]
        with trio.move_on_after(seconds):
            for feed in feeds:
                await feed.looked.wait()
        now = _some_seconds_ago()
        for feed in feeds:
            if isinstance(feed.followers.get(session), Latest):
                feed.followers[session] = now

    def subscriptions_read(self) -> None:
        """Have those who came before the subscriptions were read follow theirs, from some seconds before they came."""
        early, self._early = self._early, {}
        for session, since in early.items():
            for chat in self._chats_of(session.username):
                self._follow(session, self._names.topic(chat), since)

    def user_changed(self, change: SubscriptionChange) -> None:
        """Have the live sessions of a user follow what was subscribed, from where it was, and leave what was not.

        What everybody follows nobody leaves: another instance may have other defaults, or the log be older than ours.
        """
        topic = self._names.topic(change.chat)
        if topic in self._feeds and self._feeds[topic].pinned:
            return
        for session in list(self._by_user.get(change.username, ())):
            if change.subscribed:
                self._follow(session, topic, At(change.topic_id, change.starts))
            else:
                self._unfollow(session, topic)

    # The TailListener

    def topic_opened(self, topic: str, topic_id: str, starts: Mapping[int, int], *, created: bool) -> None:
        """Open logs for these partitions, and give every follower a cursor in each."""
        feed = self._feeds[topic]
        feed.topic_id = topic_id
        feed.looked.set()
        for partition, start in starts.items():
            log = PartitionLog(PartitionKey(topic, topic_id, partition), start, self._memory)
            feed.logs[partition] = log
            for session, begin in feed.followers.items():
                self._begin(session, log, At("", {}) if created else begin)

    def topic_missing(self, topic: str) -> None:
        """There is no such topic; it is followed all the same."""
        self._feeds[topic].looked.set()

    def topic_lost(self, topic: str, topic_id: str, cause: Lost | None) -> None:
        """Close the logs of a topic that is no more."""
        feed = self._feeds[topic]
        for log in feed.logs.values():
            self._close(log)
        feed.logs.clear()
        feed.topic_id = ""

    def append(self, key: PartitionKey, batches: Sequence[Batch]) -> None:
        """Append to a log, and have it walked."""
        log = self._feeds[key.topic].logs[key.partition]
        for batch in batches:
            log.append(batch)
        self._fanout.changed(log)

    def position_lost(self, key: PartitionKey, asked: int, first_left: int, cause: Lost) -> None:
        """Begin the log anew, and move every cursor to where it can go on, in one step."""
        feed = self._feeds[key.topic]
        old = feed.logs[key.partition]
        new = feed.logs[key.partition] = PartitionLog(key, first_left, self._memory)
        places = [(cursor.session, cursor.position) for cursor in old.followers]
        self._close(old)
        for session, position in places:
            session.follow(new, min(position, first_left) if cause is Lost.TRUNCATED else first_left, afresh=True)

    # Inside

    def _feed(self, topic: str) -> Feed:
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = Feed()
            self._tail.follow(topic)
        return feed

    def _follow(self, session: Session, topic: str, start: Start) -> None:
        feed = self._feed(topic)
        if session in feed.followers:
            return
        self._by_user[session.username][session].append(topic)
        feed.followers[session] = start
        for log in feed.logs.values():
            self._begin(session, log, start)

    def _unfollow(self, session: Session, topic: str) -> None:
        feed = self._feeds.get(topic)
        if feed is None or feed.followers.pop(session, None) is None:
            return
        self._by_user[session.username][session].remove(topic)
        for log in feed.logs.values():
            session.unfollow(log)
        if not feed.followers and not feed.pinned:
            self._tail.unfollow(topic)
            del self._feeds[topic]
            for log in feed.logs.values():
                self._close(log)

    def _begin(self, session: Session, log: PartitionLog, start: Start) -> None:
        """Give `session` a cursor in `log`, now or when it is known where."""
        match start:
            case Latest():
                session.follow(log, log.head)
            case At():
                session.follow(log, start.offset(log.key))
            case Since():
                self._times.want(log.key, start.time_ms, partial(self._begin_at, session, log, log.head))

    def _begin_at(self, session: Session, log: PartitionLog, head: int, offset: int) -> None:
        """Begin at a time's offset, and not above the head as it was when that was asked."""
        feed = self._feeds.get(log.key.topic)
        if log.key in session.cursors:
            return  # it has left meanwhile, and come again
        if feed is not None and session in feed.followers and feed.logs.get(log.key.partition) is log:
            session.follow(log, min(offset, head))

    def _close(self, log: PartitionLog) -> None:
        for cursor in list(log.followers):
            cursor.session.unfollow(log)
        self._fanout.forget(log)
        self._times.forget(log.key)
        log.close()


def _some_seconds_ago() -> Since:
    return Since(time.time_ns() // 1_000_000 - EARLIER_MS)
