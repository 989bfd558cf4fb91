"""Subscription writes in flight or of unknown outcome, by user and chat.

For these pairs of user and chat our tail may be stale, so a call always writes, even if nothing seems to change. Calls on the
same pair wait for each other; calls on different pairs do not.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Set

DOUBT_SECONDS = 60.0  # how long a broker that has taken a record may hang


class PendingWrites:
    """The pairs being written, and the pairs of unknown outcome."""

    def __init__(self) -> None:
        self._being_written: dict[str, dict[str, trio.Event]] = {}  # user -> chat -> set at the end of the write
        self._doubts: dict[tuple[str, str], float] = {}  # user, chat -> until when the outcome counts as unknown

    async def free(self, username: str, chats: Collection[str] | None) -> None:
        """Wait until none of these pairs (None: of the user's pairs) is being written. Locks nothing."""
        while True:
            written = self._being_written.get(username, {})
            busy = [written[chat] for chat in (written if chats is None else chats) if chat in written]
            if not busy:
                return
            await busy[0].wait()

    def being_written(self, username: str) -> Set[str]:
        """Return the chats that are being written for this user."""
        return self._being_written.get(username, {}).keys()

    def doubtful(self, username: str, chats: Collection[str]) -> list[str]:
        """Return those of `chats` for which it is unknown whether our last record is in the log."""
        now = trio.current_time()
        return [chat for chat in chats if self._doubts.get((username, chat), now) > now]

    def all_doubtful(self, username: str) -> list[str]:
        """Return all chats of a user with an unknown outcome."""
        return self.doubtful(username, [chat for user, chat in self._doubts if user == username])

    @contextmanager
    def written(self, username: str, chats: Collection[str]) -> Iterator[None]:
        """Count free pairs as being written while the block runs; and as of unknown outcome if it raises."""
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
