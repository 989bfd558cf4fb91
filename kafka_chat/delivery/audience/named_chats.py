"""Limits how many chats without a topic all clients together may name: the Tail looks for each of them repeatedly."""

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

WAITING = 10  # clients that wait for the answer whether their chats exist; further ones do not wait


class NamedChats:
    """Lets clients name chats while not too many of them do not exist.

    Whether a chat exists is unknown while nobody follows it. Near the limit a broker is asked, so a client that uses up the absent
    chats keeps nobody from existing ones.

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
        """Return which of these chats have a topic, if that decides whether they may be named; otherwise none of them.

        Clients ask one after the other. If many wait already, or no broker answers, chats that nobody follows count as absent.
        """
        if not self._are_too_many(chats, ()) or self._asking.statistics().tasks_waiting >= WAITING:
            return ()
        async with self._asking:
            with suppress(BrokerError):  # then the client is refused, and may try again
                return {self._names.chat(topic) for topic in await self._lookup.describe([self._names.topic(chat) for chat in chats])}
        return ()

    def check(self, chats: Collection[str], existing: Collection[str]) -> None:
        """Raise `Overloaded` if these may not be named as well.

        Args:
            chats: what a client names.
            existing: those of them that are known to exist.
        """
        if self._are_too_many(chats, existing):
            raise Overloaded(
                f"{self._limit} chats without a topic are named already (limits.absent_chats); try again later, or subscribe to them"
            )

    def _are_too_many(self, chats: Collection[str], existing: Collection[str]) -> bool:
        absent = [chat for chat in chats if chat not in existing]
        return bool(absent) and self._audience.named_absent(absent) > self._limit
