"""Limits how many chats without a topic all clients together may name, because the Tail looks up each of them repeatedly."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...errors import BrokerError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ...chat.names import ChatNames
    from ..ports import Lookup
    from .audience import Audience

WAITING = 10  # clients that may wait to learn whether their chats exist; further ones do not wait


class NamedChats:
    """Lets clients name chats, unless too many of them do not exist.

    A user may name half of what other users leave of the limit, so that there is always some left for the next user.
    It is unknown whether a chat exists that is not followed. Near a limit a broker is asked, so a client that uses up the absent
    chats does not keep others from existing ones.

    Args:
        audience: knows which chats are named.
        lookup: asks the brokers which exist.
        names: chat <-> topic.
        limit: `limits.absent_chats`.
    """

    def __init__(self, audience: Audience, lookup: Lookup, names: ChatNames, limit: int) -> None:
        self._audience = audience
        self._lookup = lookup
        self._names = names
        self._limit = limit
        self._asking = trio.Lock()
        self._held: dict[str, Counter[str]] = {}  # username -> chat not known to exist -> connections that name it

    async def existing(self, username: str, chats: Collection[str]) -> Collection[str]:
        """Return which of these chats have a topic, if that decides whether they may be named; otherwise return none.

        Clients ask one after the other. If many wait already, or no broker answers, chats that are not followed count as absent.
        """
        if not self._refusal(username, chats) or self._asking.statistics().tasks_waiting >= WAITING:
            return ()
        async with self._asking:
            with suppress(BrokerError):  # then the client is refused, and may try again
                return {self._names.chat(topic) for topic in await self._lookup.describe([self._names.topic(chat) for chat in chats])}
        return ()

    def check(self, username: str, chats: Collection[str], existing: Collection[str]) -> Collection[str]:
        """Return which of these chats count as absent.

        Args:
            username: the client's user.
            chats: the chats that the client names.
            existing: those of them that are known to exist.

        Raises:
            Overloaded: they may not be named as well.
        """
        absent = [chat for chat in chats if chat not in existing]
        if refusal := self._refusal(username, absent):
            raise Overloaded(refusal)
        return absent

    def hold(self, username: str, absent: Collection[str]) -> Callable[[], None]:
        """Count these for a user, until the returned function is called."""
        held = self._held.setdefault(username, Counter())
        held.update(absent)

        def release() -> None:
            for chat in absent:
                held[chat] -= 1
                if not held[chat]:
                    del held[chat]
            if not held:
                del self._held[username]

        return release

    def _refusal(self, username: str, absent: Collection[str]) -> str | None:
        """Return why these may not be named as well; None if they may."""
        if not absent:
            return None
        together = self._audience.named_absent(absent)
        if together > self._limit:
            return f"{self._limit} chats without a topic are named already (limits.absent_chats); try again later, or subscribe to them"
        mine = self._held.get(username, Counter()).keys() | absent
        if len(mine) > self._share(together - len(mine)):
            mine = {chat for chat in mine if not self._audience.exists(chat)}
        share = self._share(together - len(mine))
        if len(mine) > share:
            return (
                f"this user may name {share} chats without a topic now, half of what others leave (limits.absent_chats); try again later, "
                "or subscribe to them"
            )
        return None

    def _share(self, others: int) -> int:
        """Return how many absent chats a user may name while other users name `others`."""
        return (self._limit - max(0, others) + 1) // 2
