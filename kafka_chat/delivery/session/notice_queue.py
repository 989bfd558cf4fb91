"""The pending notices of one client, merged so that they stay few.

Other users can cause notices: any client may subscribe any user to any chat, any number of times, while that user's socket reads
nothing. So the queue keeps a state, not a history: one subscription notice per chat, one gap per partition, one heartbeat, and
the answers to one op. A client that reads late ends up with the same knowledge as one that reads at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import msgspec

from ...chat.loss_cause import LossCause
from .notices import Gap, Heartbeat, Live, Notice, Subscribed, Unsubscribed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .notices import Answer, Challenge, Hello

    Subscription = Subscribed | Unsubscribed

# From weak to strong: a later start, a lost end, another topic. Merged gaps have their strongest cause.
_CAUSES = (LossCause.RETENTION, LossCause.TRUNCATED, LossCause.RECREATED)
NO_RECORD = -1  # below all offsets
_CHALLENGE = ("", None)  # no chat is called so


@dataclass(frozen=True, slots=True)
class _Change:
    """The latest change of one chat.

    Attributes:
        notice: the current state of the subscription.
        known: whether the client knew the chat as followed before the pending changes.
        offset: the offset of its record.
    """

    notice: Subscription
    known: bool
    offset: int


@dataclass(frozen=True, slots=True)
class _News:
    """What has become of a chat while an op is being done: few changes, however many there were.

    Attributes:
        first: of them.
        last: of them; the same one where there was only one.
    """

    first: _Change
    last: _Change


class NoticeQueue:
    """The pending notices in the order of sending: `hello`, changes and gaps, `live`, `heartbeat`.

    A merged notice has the position of the later of the two. `live` and `heartbeat` get their cursor when they are sent, so that
    no cursor reaches the client before a gap that it is past.

    Attributes:
        heard: whether the client understands notices.
        waits: whether a notice is pending. An attribute, because each read of a session checks it, and `len` takes 0.25 µs.
    """

    __slots__ = ("_answers", "_heartbeat", "_hello", "_live", "_own", "_waiting", "waits")

    heard: ClassVar[bool] = True

    def __init__(self) -> None:
        self.waits = False
        self._hello: Hello | None = None
        # (chat, partition) -> a gap; (chat, None) -> the news of a chat; ("", a number) -> an answer; ("", None) -> a challenge.
        # None while there are none, as on most sockets: an empty OrderedDict has 250 bytes. A dict would be slow to pop from the front of.
        self._waiting: OrderedDict[tuple[str, int | None], Notice | _Change] | None = None
        self._answers = 0
        self._own: dict[str, _News | None] = {}  # chats of the op that is being done -> what is new of them meanwhile
        self._live = False
        self._heartbeat = False

    def __len__(self) -> int:
        """How many notices are pending."""
        return (self._hello is not None) + len(self._waiting or ()) + self._live + self._heartbeat

    def add_hello(self, hello: Hello) -> None:
        """Queue `hello` first. It lists the followed chats, so pending changes are dropped."""
        self._hello = hello
        self.waits = True
        for key in [key for key, notice in (self._waiting or {}).items() if isinstance(notice, _Change)]:
            self._remove(key)

    def add_gap(self, gap: Gap) -> None:
        """Queue a gap, merged with a pending one of the same partition: from the first due offset to the last `first_left`."""
        key = gap.chat, gap.partition
        waiting = self._remove(key)
        if isinstance(waiting, Gap):
            cause = max(waiting.cause, gap.cause, key=_CAUSES.index)
            gap = Gap(chat=gap.chat, partition=gap.partition, first_lost=waiting.first_lost, first_left=gap.first_left, cause=cause)
        self._append(key, gap)

    def add_subscription(self, notice: Subscription, offset: int) -> None:
        """Queue that the user follows a chat, or no longer does; such changes of one chat alternate.

        A chat that came and went before the client learned of it is not mentioned at all. Changes of the current op's chats
        wait for its answer.

        Args:
            notice: the current state.
            offset: the offset of its record.
        """
        chat, change = notice.chat, _Change(notice, isinstance(notice, Unsubscribed), offset)
        if chat not in self._own:
            self._put(chat, _merged(self._remove((chat, None)), change))
        elif (news := self._own[chat]) is None:
            self._own[chat] = _News(change, change)
        else:
            self._own[chat] = _News(news.first, _Change(notice, news.first.known, offset))

    def begin_op(self, chats: Iterable[str]) -> None:
        """Hold back changes of `chats`, because an op changes them, and its answers report that."""
        self._own = dict.fromkeys(chats)

    def add_answers(self, answers: Sequence[Answer], written: Mapping[str, int]) -> None:
        """Queue the answers to the finished op, and then those changes of its chats that the answers do not cover.

        `Unsubscribed` gets the positions at which delivery has ended: it went on until the op's record had been read.

        Args:
            answers: the answers, in order.
            written: chat -> the offset of the op's record for it; the answer covers changes up to there.
        """
        own, self._own = self._own, {}
        said: dict[str, Subscription] = {}
        for answer in answers:
            if isinstance(answer, (Subscribed, Unsubscribed)):
                said[answer.chat] = answer
                self._remove((answer.chat, None))  # the answer is newer
            exact = answer
            if isinstance(answer, Unsubscribed) and (ended := _ended(own.get(answer.chat), written.get(answer.chat, NO_RECORD))):
                exact = msgspec.structs.replace(answer, positions=ended.positions)
            self._append(("", self._answers), exact)
            self._answers += 1
        for chat, news in own.items():
            if news is None:
                continue
            change = news.last
            answer_of_chat = said.get(chat)
            if answer_of_chat is None:  # the op failed, and yet the chat has changed
                self._put(chat, _merged(self._remove((chat, None)), change))
            elif change.offset > written.get(chat, NO_RECORD) or (change.offset < 0 and type(change.notice) is not type(answer_of_chat)):
                # Somebody else changed the chat between the op and its answer; an offset that is not known tells less.
                self._put(chat, _Change(change.notice, isinstance(answer_of_chat, Subscribed), change.offset))

    def add_live(self) -> None:
        """Queue `live`: everything that existed at the connect has been delivered."""
        self._live = self.waits = True

    def add_challenge(self, challenge: Challenge) -> None:
        """Queue a challenge, in place of one that waits."""
        self._append(_CHALLENGE, challenge)

    def add_heartbeat(self) -> None:
        """Queue `heartbeat`, unless one is pending."""
        self._heartbeat = self.waits = True

    def pop(self, cursor: Callable[[], str | None]) -> Notice:
        """Remove and return the next notice.

        Args:
            cursor: returns the client's cursor; called if the notice needs it.

        Raises:
            IndexError: none is pending.
        """
        notice: Notice
        if self._hello is not None:
            notice, self._hello = self._hello, None
        elif self._waiting is not None:
            _, waiting = self._waiting.popitem(last=False)
            notice = waiting.notice if isinstance(waiting, _Change) else waiting
            self._waiting = self._waiting or None
        elif self._live:
            self._live = False
            notice = Live(cursor=cursor())
        elif self._heartbeat:
            self._heartbeat = False
            notice = Heartbeat(cursor=cursor())
        else:
            raise IndexError("no notice waits")
        self.waits = len(self) > 0
        return notice

    def clear(self) -> None:
        """Drop all pending notices: the client is gone."""
        self._hello = self._waiting = None
        self._live = self._heartbeat = self.waits = False

    def _put(self, chat: str, change: _Change | None) -> None:
        if change is not None:
            self._append((chat, None), change)

    def _append(self, key: tuple[str, int | None], notice: Notice | _Change) -> None:
        if self._waiting is None:
            self._waiting = OrderedDict()
        self._waiting[key] = notice
        self.waits = True

    def _remove(self, key: tuple[str, int | None]) -> Notice | _Change | None:
        if self._waiting is None:
            return None
        removed = self._waiting.pop(key, None)
        self._waiting = self._waiting or None
        self.waits = len(self) > 0
        return removed


class Unheard(NoticeQueue):
    """The queue of a bare client, which gets no notices because it would not understand them."""

    __slots__ = ()

    heard = False

    def add_gap(self, gap: Gap) -> None:
        """Drop it."""

    def add_subscription(self, notice: Subscription, offset: int) -> None:
        """Drop it."""

    def add_live(self) -> None:
        """Drop it."""


def _ended(news: _News | None, written: int) -> Unsubscribed | None:
    """Return the change by which an unsubscribing op has ended a chat; None where the chat was not followed.

    Args:
        news: of the chat, since the op began.
        written: the offset of the op's own record for the chat; below all of them where it wrote none.
    """
    for change in () if news is None else (news.last, news.first):
        if change.offset <= written and isinstance(change.notice, Unsubscribed):
            return change.notice
    return None


def _merged(waiting: object, change: _Change) -> _Change | None:
    """Return the pending change of a chat after `change`; None if there is nothing to say, because the client never knew the chat.

    Args:
        waiting: an earlier pending `_Change`, or None.
        change: the latest change.
    """
    known = waiting.known if isinstance(waiting, _Change) else change.known
    return _Change(change.notice, known, change.offset) if known or isinstance(change.notice, Subscribed) else None
