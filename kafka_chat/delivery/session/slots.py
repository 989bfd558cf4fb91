"""Limits how many clients are admitted, and how many of them may be catching up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ...access.identity import EVERYBODY, PENDING, Identity
from ...errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .options import SessionOptions


PENDING_PART = 10  # one in ten slots at most is of clients that have not brought their token yet


class Slots:
    """Slots for sessions, for dialogues, and for pages until their answer is written.

    Our own server also counts all connections, and refuses earlier.

    Args:
        limit: the number of slots.
        catching_up_limit: `limits.catching_up`.

    Attributes:
        taken: how many are.
        catching_up: how many of these have not received everything that was there when they connected.
        pending: how many of these have not brought their token yet.
    """

    def __init__(self, limit: int, *, catching_up_limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.catching_up = 0
        self.pending = 0
        self._catching_up_limit = catching_up_limit

    def take(self, username: str, options: SessionOptions, identity: Identity) -> ConnectionSlot:
        """Take one.

        Raises:
            Overloaded: no slot is free, too many clients catch up, or have not brought their token yet.
        """
        if self.taken >= self.limit:
            raise Overloaded(f"all {self.limit} connections are in use (limits.connections); try again later")
        if options.reads_past and self.catching_up >= self._catching_up_limit:
            sentence = f"{self._catching_up_limit} clients are catching up (limits.catching_up); try again later"
            raise Overloaded(sentence, retry_after_seconds=2)
        if identity is PENDING and self.pending >= max(1, self.limit // PENDING_PART):
            raise Overloaded("too many clients have not sent their first frame yet; try again later", retry_after_seconds=2)
        return ConnectionSlot(self, username, options, identity)


class ConnectionSlot:
    """A slot of one client; given back when the block ends.

    Attributes:
        on_left: called then; None: nothing is.
    """

    def __init__(self, slots: Slots, username: str, options: SessionOptions, identity: Identity) -> None:
        self.username = username
        self.options = options
        self.identity = identity
        self._slots = slots
        self._catching_up = options.reads_past
        self.on_left: Callable[[], None] | None = None
        slots.taken += 1
        slots.catching_up += self._catching_up
        slots.pending += identity is PENDING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.caught_up()
        self.identify(EVERYBODY)
        self._slots.taken -= 1
        if self.on_left is not None:
            self.on_left()

    def identify(self, identity: Identity) -> None:
        """Take the identity that the first frame has brought."""
        self._slots.pending -= self.identity is PENDING
        self.identity = identity

    def caught_up(self) -> None:
        """Note that its client has received everything that existed when it connected. Idempotent."""
        self._slots.catching_up -= self._catching_up
        self._catching_up = False
