"""How many chats without a topic clients may name, all together: each of them is looked for, again and again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...errors import BrokerError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Collection

    from ...chat.names import ChatNames
    from ..ports import Lookup
    from .audience import Audience

WAITING = 10  # clients that wait to be told whether what they name is there; beyond that nobody else is


class NamedChats:
    """Lets clients name chats, as long as those that do not exist are not too many.

    What nobody follows is not known to exist. Where that decides, a broker is asked, so that anyone who names all the absent chats there
    may be keeps nobody from the chats that are there.

    Args:
        audience: knows what is named.
        lookup: is asked what is there.
        names: chat <-> topic.
        limit: `limits.absent_chats`.
    """

    def __init__(self, audience: Audience, lookup: Lookup, names: ChatNames, limit: int) -> None:
        self._audience = audience
        self._lookup = lookup
        self._names = names
        self._limit = limit
        self._asking = trio.Lock()

    async def existing(self, chats: Collection[str]) -> Collection[str]:
        """Return which of these chats have a topic, where that decides whether they may be named; else none of them.

        Clients ask one after the other. Where many wait already, or no broker answers, what nobody follows is taken for absent.
        """
        if not self._are_too_many(chats, ()) or self._asking.statistics().tasks_waiting >= WAITING:
            return ()
        async with self._asking:
            with suppress(BrokerError):  # then it is refused, and may come again
                return {self._names.chat(topic) for topic in await self._lookup.describe([self._names.topic(chat) for chat in chats])}
        return ()

    def check(self, chats: Collection[str], existing: Collection[str]) -> None:
        """Raise `Overloaded` where these may not be named, too.

        Args:
            chats: what a client names.
            existing: those of them that are known to be there.
        """
        if self._are_too_many(chats, existing):
            raise Overloaded(
                f"{self._limit} chats without a topic are named already (limits.absent_chats); try again later, or subscribe to them"
            )

    def _are_too_many(self, chats: Collection[str], existing: Collection[str]) -> bool:
        absent = [chat for chat in chats if chat not in existing]
        return bool(absent) and self._audience.named_absent(absent) > self._limit
