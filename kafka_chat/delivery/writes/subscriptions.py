"""Reads and changes which chats a user follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...chat.names import TOPIC_LENGTH, ChatNames
from ...chat.partition_key import PartitionKey
from ...chat.subscription_change import SubscriptionChange
from ...errors import BrokerUnreachable, Conflict, RequestError
from .deadlines import Due, answer_due
from .pending_writes import PendingWrites
from .record_rate import RecordRate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from ...settings.model import Settings
    from ..ports import Lookup, SubscriptionLog, TopicFacts

CHATS_PER_CALL = 100


class FollowedChat(msgspec.Struct, frozen=True):
    """A chat that a user follows.

    Attributes:
        chat: its name.
        topic: its topic's name.
        exists: whether there is such a topic now; a chat that comes later is followed from its first message. Null where `denied`.
        default: whether everybody follows it.
        denied: true where who asks may not read it; left out otherwise.
    """

    chat: str
    topic: str
    exists: bool | None
    default: bool
    denied: bool | msgspec.UnsetType = msgspec.UNSET


def _anything(chat: str) -> bool:
    return True


class Subscriptions:
    """The subscriptions of all users.

    Calls for the same user and chat wait for each other; between instances the order of the log decides. Every call returns
    within `BrokerTimeouts.request_seconds`, with all chats that the user then follows. All calls are idempotent.

    Args:
        log: the subscriptions of all users.
        lookup: asks which topics exist, and where they end.
        names: chat <-> topic.
        settings: the chats that everybody follows (without subscriptions), and the limits.
    """

    def __init__(self, log: SubscriptionLog, *, lookup: Lookup, names: ChatNames, settings: Settings) -> None:
        self._log = log
        self._lookup = lookup
        self._names = names
        self._default = frozenset(settings.chats.default)
        self._limits = settings.limits
        self._pending = PendingWrites()
        self._rate = RecordRate(settings.limits.subscription_records_per_second)

    def chats_of(self, username: str) -> dict[str, SubscriptionChange]:
        """Return chat -> subscription, or None for the chats that everybody follows.

        As far as our own tail of the log has read: only the default chats before `SubscriptionLog.ready`.
        """
        followed = {chat: SubscriptionChange(username=username, chat=chat, subscribed=True, starts={}) for chat in self._default}
        longest = TOPIC_LENGTH - len(self._names.prefix)  # a longer name may have been subscribed to under a shorter prefix
        for chat, subscription in self._log.chats_of(username).items():
            if len(chat) <= longest:
                followed.setdefault(chat, subscription)
        return followed

    async def following(self, username: str, *, may_read: Callable[[str], bool] = _anything) -> list[FollowedChat]:
        """Return all that a user follows, sorted by chat.

        Args:
            username: legal and normalised.
            may_read: whether who asks may read a chat; of one that they may not, nothing is looked up.

        Raises:
            BrokerError: the subscriptions are still being read, or no broker answers.
        """
        with answer_due(f"listing what {username} follows", self._lookup.timeouts):
            self._check_ready()
            return await self._answer(username, set(), {}, may_read)

    async def subscribe(
        self,
        username: str,
        chats: Sequence[str],
        *,
        written: Callable[[Mapping[str, int]], object] = dict,
        may_read: Callable[[str], bool] = _anything,
    ) -> list[FollowedChat]:
        """Subscribe a user to all of `chats`, or to none; return what `following` does.

        A message acknowledged after this has returned is delivered to the user's live sessions, on every instance. After a
        cancel the subscription may still be written, within seconds.

        Args:
            username: valid and normalised.
            chats: 1 to 100 names of chats or of their topics; chats that are followed already stay unchanged.
            written: called with the offset of each chat's record, if any, once they are acknowledged.
            may_read: as for `following`.

        Raises:
            RequestError: too many chats for one call, none, or one that is not legal.
            Conflict: over `limits.chats_per_user`.
            Overloaded: over `limits.subscription_records_per_second`; nothing was written.
            BrokerError: it could not be written; see `Publisher` for what then holds.
        """
        wanted = self._parse(chats)
        with answer_due(f"subscribing {username}", self._lookup.timeouts) as due:
            self._check_ready()
            topics = {self._names.topic(chat) for chat in (*wanted, *filter(may_read, self.chats_of(username)))}
            facts = await self._lookup.describe(topics)  # identities before offsets
            keys = {chat: self._keys(chat, facts) for chat in wanted if chat not in self._default}
            offsets = await self._lookup.last_stable_offsets([key for of_chat in keys.values() for key in of_chat])
            await self._pending.free(username, keys)
            subscribed = self._log.chats_of(username).keys() - self._default
            new = [chat for chat in keys if chat not in subscribed]
            self._check_number(username, subscribed | self._pending.being_written(username), new)
            changed = [*new, *self._pending.doubtful(username, keys.keys() & subscribed)]
            await self._write([_beginning(username, chat, keys[chat], offsets) for chat in changed], due, written)
            return await self._answer(username, topics, facts, may_read)

    async def unsubscribe(
        self,
        username: str,
        chats: Sequence[str] | None,
        *,
        written: Callable[[Mapping[str, int]], object] = dict,
        found: Callable[[list[str]], object] = list,
        may_read: Callable[[str], bool] = _anything,
    ) -> list[FollowedChat]:
        """Unsubscribe a user from all of `chats`, or from none; return what `following` does.

        After a cancel the change may still be written, within seconds.

        Args:
            username: valid and normalised.
            chats: as for `subscribe`; chats that are not followed stay unchanged. None: all chats except the default ones.
            written: as for `subscribe`.
            found: called with those of `chats` that have a topic, followed or not.
            may_read: as for `following`.

        Raises:
            RequestError: too many chats for one call, none, or one that is not legal.
            Conflict: everybody follows one of them.
            Overloaded: over `limits.subscription_records_per_second`; nothing was written.
            BrokerError: it could not be written; see `Publisher` for what then holds.
        """
        unwanted = None if chats is None else self._parse(chats)
        for chat in unwanted or ():
            if chat in self._default:
                raise Conflict(f"everybody follows {chat} (chats.default); nobody can be unsubscribed from it", field="topic")
        with answer_due(f"unsubscribing {username}", self._lookup.timeouts) as due:
            self._check_ready()
            # Asked before anything is written: a broker that does not answer is found here.
            topics = {self._names.topic(chat) for chat in filter(may_read, (*(unwanted or ()), *self.chats_of(username)))}
            facts = await self._lookup.describe(topics)
            found([chat for chat in unwanted or () if self._names.topic(chat) in facts])
            await self._pending.free(username, unwanted)
            subscribed = self._log.chats_of(username).keys() - self._default
            if unwanted is None:
                ended = subscribed.union(self._pending.all_doubtful(username))
            else:
                ended = subscribed.intersection(unwanted).union(self._pending.doubtful(username, unwanted))
            changes = [SubscriptionChange(username=username, chat=chat, subscribed=False, starts={}) for chat in sorted(ended)]
            await self._write(changes, due, written)
            return await self._answer(username, topics, facts, may_read)

    def _parse(self, chats: Sequence[str]) -> list[str]:
        """Return the named chats, without duplicates; all are valid."""
        if not chats:
            raise RequestError("topic is missing; it names a chat, and may be given several times", field="topic")
        if len(chats) > CHATS_PER_CALL:
            raise RequestError(f"topic is given {len(chats)} times; at most {CHATS_PER_CALL} are allowed in one call", field="topic")
        return list(dict.fromkeys(self._names.parse(chat, field="topic") for chat in chats))

    def _check_ready(self) -> None:
        if not self._log.ready:
            raise BrokerUnreachable(self._log.problem or "the subscriptions are still being read; try again later")

    def _check_number(self, username: str, subscribed: Set[str], new: Sequence[str]) -> None:
        limit = self._limits.chats_per_user
        if new and len({*subscribed, *new}) > limit:
            further = f"{len(new)} more would be over limits.chats_per_user, {limit}"
            raise Conflict(f"{username} has subscribed to {len(subscribed)} chats; {further}", field="topic")

    def _keys(self, chat: str, facts: Mapping[str, TopicFacts]) -> list[PartitionKey]:
        topic = self._names.topic(chat)
        if topic not in facts:
            return []
        return [PartitionKey(topic, facts[topic].topic_id, partition) for partition in sorted(facts[topic].partitions)]

    async def _write(self, changes: Sequence[SubscriptionChange], due: Due, written: Callable[[Mapping[str, int]], object]) -> None:
        """Write changes of one user to free pairs, and wait until our own tail has read them."""
        if changes:
            due.check_may_write()
            self._rate.take(len(changes))
            with self._pending.written(changes[0].username, [change.chat for change in changes]):
                last = await self._log.write(changes)
                due.note_written()
                written({change.chat: last + 1 - len(changes) + number for number, change in enumerate(changes)})  # they are one batch
                await self._log.passed(last)

    async def _answer(
        self, username: str, asked: Set[str], facts: Mapping[str, TopicFacts], may_read: Callable[[str], bool]
    ) -> list[FollowedChat]:
        """Return what is followed now.

        Args:
            username: the user.
            asked: topics that need not be looked up again.
            facts: of those of them that exist.
            may_read: as for `following`.
        """
        topics = {chat: self._names.topic(chat) for chat in sorted(self.chats_of(username))}
        readable = {topic for chat, topic in topics.items() if may_read(chat)}
        further = await self._lookup.describe(readable - asked)  # all of them, or what another instance has added
        return [
            FollowedChat(
                chat=chat,
                topic=topic,
                exists=(topic in facts or topic in further) if topic in readable else None,
                default=chat in self._default,
                denied=msgspec.UNSET if topic in readable else True,
            )
            for chat, topic in topics.items()
        ]


def _beginning(username: str, chat: str, keys: Sequence[PartitionKey], offsets: Mapping[PartitionKey, int]) -> SubscriptionChange:
    """Return the subscription to a chat that begins at `offsets` of its partitions `keys`; no keys: it has no topic."""
    for key in keys:
        if key not in offsets:
            # Left out of the record, a partition would be followed from 0.
            raise BrokerUnreachable(f"the end of {key} is unknown; it has no leader now", topic=key.topic, partition=key.partition)
    topic_id = keys[0].topic_id if keys else ""
    return SubscriptionChange(
        username=username, chat=chat, subscribed=True, topic_id=topic_id, starts={key.partition: offsets[key] for key in keys}
    )
