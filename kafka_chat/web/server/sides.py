"""What a connection knows of its two sides: what reads its requests, and what writes to its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hypercorn.events import Event


class DirectWriter(Protocol):
    """Who writes offers to the socket itself, as long as nothing is owed.

    Attributes:
        direct: whether that is so now; kept by the connection.
    """

    direct: bool


class Requests(Protocol):
    """What reads a connection's requests: `ChatH11Protocol`.

    Attributes:
        is_held: there is more behind the request that is being answered; `go_on` reads it once `has_turn`.
    """

    is_held: bool

    @property
    def held_bytes(self) -> int:
        """How much has come, and is not read yet."""

    @property
    def has_turn(self) -> bool:
        """Whether the request before has been answered, so that the next one may be read."""

    @property
    def is_busy(self) -> bool:
        """Whether the app is at work, for a request or a WebSocket."""

    @property
    def is_answering(self) -> bool:
        """Whether a request that came in whole is being answered; a WebSocket is none."""

    @property
    def waits_for_body(self) -> bool:
        """Whether a request is there whose body is not."""

    def close_after_answer(self) -> None:
        """Say `Connection: close` with the next answer."""

    def forget_http(self) -> None:
        """Drop what only requests need."""

    async def go_on(self) -> None:
        """Read what is held back, as far as it has its turn."""

    async def handle(self, event: Event) -> None:
        """Take what came from the client, or its end."""
