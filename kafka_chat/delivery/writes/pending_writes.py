"""Subscription writes in flight or of unknown outcome, by user and chat.

What our tail has read may be stale for such a pair, so a call never concludes from it that there is nothing to
write. Calls on one pair wait for each other; those on different pairs do not, and become one batch.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Set

DOUBT_SECONDS = 60.0  # how long a broker may hang that has taken a record


class PendingWrites:
    """Pairs being written, and pairs in doubt."""

    def __init__(self) -> None:
        self._being_written: dict[str, dict[str, trio.Event]] = {}  # user -> chat -> set when it no longer is
        self._doubts: dict[tuple[str, str], float] = {}  # -> until when

    async def free(self, username: str, chats: Collection[str] | None) -> None:
        """Wait until none of these pairs is being written; None: no pair of this user. Nothing is held while waiting."""
        while True:
            written = self._being_written.get(username, {})
            busy = [written[chat] for chat in (written if chats is None else chats) if chat in written]
            if not busy:
                return
            await busy[0].wait()

    def being_written(self, username: str) -> Set[str]:
        """Return the chats whose pair with this user is being written now."""
        return self._being_written.get(username, {}).keys()

    def doubtful(self, username: str, chats: Collection[str]) -> list[str]:
        """Return those of `chats` whose last record by us may be in the log or not, read or not."""
        now = trio.current_time()
        return [chat for chat in chats if self._doubts.get((username, chat), now) > now]

    def all_doubtful(self, username: str) -> list[str]:
        """Return all such chats of a user."""
        return self.doubtful(username, [chat for user, chat in self._doubts if user == username])

    @contextmanager
    def written(self, username: str, chats: Collection[str]) -> Iterator[None]:
        """Have pairs, which are free, count as being written during the block; and as doubtful if it raises."""
        written = self._being_written.setdefault(username, {})
        over = trio.Event()
        written.update(dict.fromkeys(chats, over))
        try:
            yield
        except BaseException:
            self._doubt(username, chats)
            raise
        else:
            for chat in chats:
                self._doubts.pop((username, chat), None)
        finally:
            for chat in chats:
                del written[chat]
            if not written:
                del self._being_written[username]
            over.set()

    def _doubt(self, username: str, chats: Collection[str]) -> None:
        now = trio.current_time()
        self._doubts = {pair: until for pair, until in self._doubts.items() if until > now}
        self._doubts.update(((username, chat), now + DOUBT_SECONDS) for chat in chats)
