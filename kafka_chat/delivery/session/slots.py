"""Limits how many clients are admitted, and how many of them may be catching up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ...errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .options import SessionOptions


class Slots:
    """Slots for sessions, for dialogues, and for pages until their answer is written.

    Our own server also counts all connections, and refuses earlier.

    Args:
        limit: the number of slots.
        catching_up_limit: `limits.catching_up`.

    Attributes:
        taken: how many are taken.
        catching_up: how many of these have not yet received everything that existed when they connected.
    """

    def __init__(self, limit: int, *, catching_up_limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.catching_up = 0
        self._catching_up_limit = catching_up_limit

    def take(self, username: str, options: SessionOptions) -> ConnectionSlot:
        """Take a slot.

        Raises:
            Overloaded: no slot is free, or too many clients are catching up.
        """
        if self.taken >= self.limit:
            raise Overloaded(f"all {self.limit} connections are in use (limits.connections); try again later")
        if options.reads_past and self.catching_up >= self._catching_up_limit:
            sentence = f"{self._catching_up_limit} clients are catching up (limits.catching_up); try again later"
            raise Overloaded(sentence, retry_after_seconds=2)
        return ConnectionSlot(self, username, options)


class ConnectionSlot:
    """A slot of one client; given back when the block ends.

    Attributes:
        on_left: called then; None: nothing is.
    """

    def __init__(self, slots: Slots, username: str, options: SessionOptions) -> None:
        self.username = username
        self.options = options
        self._slots = slots
        self._catching_up = options.reads_past
        self.on_left: Callable[[], None] | None = None
        slots.taken += 1
        slots.catching_up += self._catching_up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.caught_up()
        self._slots.taken -= 1
        if self.on_left is not None:
            self.on_left()

    def caught_up(self) -> None:
        """Note that its client has received everything that existed when it connected. Idempotent."""
        self._slots.catching_up -= self._catching_up
        self._catching_up = False
