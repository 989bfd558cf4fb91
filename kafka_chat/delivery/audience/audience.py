"""The members, and the chats that each follows.

It gives the members their cursors. Every start depends on this order: first register the member, then request offsets. The Tail
reports to its `FollowedTopics`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ...chat.resume_cursor import NOT_KNOWN, head_of_cursor, parse
from ...loop_sharing import Turn
from .cursor_parts import CursorParts
from .wanted_start import FROM_ZERO, AtOffsets, Resumed, Since, rather_early, some_seconds_ago

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...chat.names import ChatNames
    from ...chat.partition_key import PartitionKey
    from ...chat.resume_cursor import TopicOffsets
    from ...chat.subscription_change import SubscriptionChange
    from ..log.partition_log import PartitionLog
    from ..ports import Tail
    from .followed_topics import FollowedTopics
    from .member import Member, Rightful
    from .wanted_start import Start


RIGHTS_A_TURN = 32  # chats that a session leaves or follows, as its rights change, before others run


class Audience:
    """The live sessions and the page readers, and the chats that they follow.

    The first follower of a topic makes the Tail follow it, the last one makes it stop.

    Args:
        followed: the topics that members follow.
        tail: follows topics, and reports to `followed` what happens to them.
        names: chat <-> topic.

    Attributes:
        followed: the topics that members follow.
    """

    def __init__(self, followed: FollowedTopics, *, tail: Tail, names: ChatNames) -> None:
        self.followed = followed
        self._tail = tail
        self._names = names
        self._by_user: dict[str | None, dict[Member, list[str]]] = {}  # username -> member -> the topics it follows
        self._early: dict[Member, Since] = {}

    @property
    def sessions(self) -> int:
        """How many members there are."""
        return sum(map(len, self._by_user.values()))

    @property
    def topics(self) -> int:
        """How many topics are followed, absent ones included."""
        return len(self.followed)

    @property
    def partitions(self) -> int:
        """How many partitions are followed."""
        return self.followed.partitions

    def named_absent(self, chats: Iterable[str]) -> int:
        """Return how many topics not known to exist would be followed by name if a session named `chats`."""
        return self.followed.named_absent([self._names.topic(chat) for chat in chats])

    def pin(self, topic: str) -> None:
        """Follow `topic` even without members, so that new sessions need not ask a broker."""
        self.followed.pin(topic)
        self._tail.follow(topic)

    @contextmanager
    def joined(self, session: Member, *, known: bool) -> Iterator[None]:
        """While the block runs, have `session` follow its user's chats, or the chats that it names.

        Args:
            session: the new member.
            known: whether the subscriptions have been read; if not, `subscriptions_read` adds them later.
        """
        user = session.subscriber
        sessions = self._by_user.setdefault(user, {})
        sessions[session] = []
        if not known:
            self._early[session] = some_seconds_ago()
        try:
            for chat, change in session.chats().items():
                self._follow(session, self._names.topic(chat), session.start(self._names.topic(chat), change))
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
        """Wait, at most `seconds`, until the start offsets of `session` are fixed.

        Reads into the past may take longer (`wait_readings`). If no broker has answered by then, it begins some seconds before now,
        once one answers: better too early than too late.
        """
        follower, topics = session.follower, [self.followed[topic] for topic in self._topics_of(session)]
        with trio.move_on_after(seconds):
            for followed in topics:
                await followed.existence_known.wait()
                while not followed.has_visited(follower):
                    await self.followed.walks.changes.wait_beyond(self.followed.walks.changes.version)
            await self.followed.starts.wait_answers(follower)
        now = some_seconds_ago()
        for followed in topics:
            start = followed.followers.get(follower)
            if start is not None:
                followed.followers[follower] = rather_early(start, now)

    async def wait_readings(self, session: Member) -> None:
        """Wait some seconds for the reads that find the start of `session`, and for logs that end before that offset."""
        await self.followed.starts.wait_readings(session.follower)

    def has_started(self, session: Member) -> bool:
        """Whether the start offsets of `session` are fixed in everything it follows."""
        if session in self._early or self.followed.starts.pending(session.follower) is not None:
            return False
        return all(self.followed[topic].has_placed(session.follower) for topic in self._topics_of(session))

    def forget_start(self, session: Member) -> int:
        """Free the cursor that `session` resumed from, since it has started; partitions added later begin at 0 in any case.

        Absent topics still need it, to report a gap once they exist. So do partitions without a leader, which are opened later
        at the cursor's offset.

        Returns:
            How many bytes of the cursor are still needed.
        """
        needed = 0
        for topic in self._topics_of(session):
            followed = self.followed[topic]
            start = followed.followers[session.follower]
            if not isinstance(start, Resumed):
                continue
            if followed.logs and not start.entry.names_others(followed.logs):
                followed.followers[session.follower] = FROM_ZERO
            else:
                needed += start.entry.held_bytes
        return needed

    def chats(self, session: Member) -> list[str]:
        """Return the chats that `session` follows, sorted."""
        return sorted(map(self._names.chat, self._topics_of(session)))

    def exists(self, chat: str) -> bool:
        """Whether a followed chat is known to have a topic."""
        return self.followed.is_there(self._names.topic(chat))

    def log(self, key: PartitionKey) -> PartitionLog | None:
        """Return the log of a partition; None if it is not followed."""
        followed = self.followed.get(key.topic)
        found = None if followed is None else followed.logs.get(key.partition)
        return found if found is not None and found.key == key else None

    def logs(self, session: Member, chat: str) -> list[PartitionLog]:
        """Return the logs of a chat that `session` follows, in the order of their partitions; empty if it has no topic."""
        followed = self.followed.get(self._names.topic(chat))
        return [] if followed is None or session.follower not in followed.followers else [log for _, log in sorted(followed.logs.items())]

    def cursor(self, session: Member, *, cluster: bytes | None, subscriptions: int, parts: CursorParts | None = None) -> str | None:
        """Return the cursor up to which `session` has received everything; None until its start is first fixed.

        Args:
            session: the session.
            cluster: the cluster's mark; None if unknown.
            subscriptions: the offset up to which the subscriptions topic has been read; `NOT_KNOWN` if unknown.
            parts: the parts that the session keeps from one cursor to the next, if it does.
        """
        head = head_of_cursor(cluster, subscriptions, complete=not session.only)
        topics, parts = self._topics_of(session), parts or CursorParts()
        # Versions are never reused, so equal ones mean that no topic has changed since the parts were made, when it had started.
        if not topics or parts.versions != [self.followed[topic].version for topic in topics]:
            if not self.has_started(session):
                return parts.stale_text()
            unsaid = () if session.only else self._begun_by_record(session, subscriptions)
            followed = {topic: self.followed[topic] for topic in topics}
            parts.make(head, followed, session.follower, unsaid, session.kept, there=self.partitions_of)
        return parts.text(head)

    async def subscriptions_read(self) -> None:
        """Have sessions that connected before the subscriptions were read follow theirs, from some seconds before the connect on."""
        turn = Turn()
        while self._early:  # a session that leaves meanwhile removes itself
            session, since = self._early.popitem()
            for chat, change in () if session.only else session.chats().items():
                topic = self._names.topic(chat)
                self._follow(session, topic, rather_early(session.start(topic, change), since))
            await turn.share()

    async def user_changed(self, change: SubscriptionChange) -> None:
        """Have the live sessions of a user follow a new subscription from its offsets, or unfollow the chat.

        Default chats are never unfollowed: another instance may have other defaults, or the record may be older than ours.

        Called for one change at a time, after the log has it; must not be cancelled. Sessions that join meanwhile know the
        change already, and those that leave do not need it.
        """
        topic = self._names.topic(change.chat)
        if (followed := self.followed.get(topic)) is not None and followed.pinned:
            return
        turn = Turn()
        for session in list(self._by_user.get(change.username, ())):
            if session not in self._by_user.get(change.username, ()):
                continue
            if change.subscribed == (topic in self._topics_of(session)):
                continue  # it joined when the log had the change already, and its `hello` includes it; or it may not read it
            if change.subscribed and not session.may_follow(change.chat):
                continue
            if change.subscribed:
                self._follow(session, topic, AtOffsets(change.topic_id, change.starts))
                session.on_subscribed(change)
            else:
                session.on_unsubscribed(change, self.positions(session, change.chat))
                self._unfollow(session, topic)
            await turn.share()

    async def rights_changed(self, session: Rightful) -> None:
        """Have a session leave the chats that it may not read any more, and follow those that it may read now."""
        turn = Turn()
        while True:  # the subscriptions may change while others have their turn
            wanted = session.chats()
            followed = set(self._topics_of(session))
            lost = [topic for topic in self._topics_of(session) if self._names.chat(topic) not in wanted]
            gained = [chat for chat in wanted if self._names.topic(chat) not in followed]
            if not lost and not gained:
                return
            for topic in lost[:RIGHTS_A_TURN]:
                chat = self._names.chat(topic)
                session.on_denied(chat, self.positions(session, chat), self._entry(session, topic))
                self._unfollow(session, topic)
            for chat in gained[:RIGHTS_A_TURN]:
                self._follow(session, self._names.topic(chat), session.on_allowed(chat, wanted[chat]))
            await turn.share()

    def _entry(self, session: Member, topic: str) -> TopicOffsets | None:
        """Return where a session is in a topic, as a cursor says it."""
        parts = CursorParts()
        parts.make(head_of_cursor(None, NOT_KNOWN), {topic: self.followed[topic]}, session.follower, unsaid=(), there=self.partitions_of)
        return parse(parts.text(head_of_cursor(None, NOT_KNOWN))).entry(topic)

    def partitions_of(self, topic: str) -> int:
        """Return how many partitions a followed topic is known to have, also those without a log; 0 if unknown."""
        return self._tail.partitions(topic)

    def positions(self, session: Member, chat: str) -> dict[int, int]:
        """Return partition -> position of `session` in a chat, for partitions where its position is fixed."""
        cursors = {log.key.partition: session.follower.cursors.get(log.key) for log in self.logs(session, chat)}
        return {partition: cursor.position for partition, cursor in cursors.items() if cursor is not None}

    # Inside

    def _follow(self, session: Member, topic: str, start: Start) -> None:
        topics = self._topics_of(session)
        topics.append(topic)  # before it gets a cursor, because its session then asks what it follows
        if self.followed.follow(session.follower, topic, start, by_name=bool(session.only)):
            self._tail.follow(topic)  # reports nothing before this call has returned
        else:
            topics.pop()

    def _unfollow(self, session: Member, topic: str) -> None:
        if self.followed.unfollow(session.follower, topic, by_name=bool(session.only)):
            self._topics_of(session).remove(topic)
            if self.followed.get(topic) is None:
                self._tail.unfollow(topic)

    def _begun_by_record(self, session: Member, subscriptions: int) -> set[str]:
        """Return a member's topics that did not exist when they were subscribed to, by records below an offset."""
        changes = {chat: change for chat, change in session.chats().items() if change is not None}
        return {self._names.topic(chat) for chat, change in changes.items() if not change.topic_id and 0 <= change.offset < subscriptions}

    def _topics_of(self, session: Member) -> list[str]:
        return self._by_user[session.subscriber][session]
