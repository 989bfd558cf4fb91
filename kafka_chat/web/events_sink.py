"""How server-sent events reach a client: as the body of a response that goes on and on."""

from __future__ import annotations

from collections import deque
from random import randint
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGISendCallable

PIECE_BYTES = 16 * 1024  # each has a time limit; a slow client that goes on reading keeps to it
SILENCE_SECONDS = 20.0  # proxies end what is silent for longer; 30 and 60 seconds are usual
COMMENT = b":\n\n"
RETRY_MS = (1000, 4000)  # when to come back after a cut, drawn for each: not all in the same instant after a restart


class EventsSink:
    """Hands events to the server piece by piece, over HTTP/1.1 or HTTP/2. See `seams.Sink`.

    A piece that is handed over is the server's, which writes it also where we are cancelled meanwhile.
    """

    __slots__ = ("_abort", "_handing", "_open", "_owed", "_pieces", "_send", "_spoke_at", "_write_seconds")

    def __init__(self, send: ASGISendCallable, *, abort: Callable[[str | None], None], write_seconds: float) -> None:
        """Begin to take offers.

        Args:
            send: the ASGI callable of a request whose response has been started.
            abort: ends it at once; is told why, for the operator, or None where that is told elsewhere.
            write_seconds: for a single piece.
        """
        self._send = send
        self._abort = abort
        self._write_seconds = write_seconds
        self._pieces: deque[bytes] = deque()
        self._owed = 0
        self._open = True
        self._handing = trio.Lock()
        self._spoke_at = trio.current_time()
        self.offer(b"retry: %d\n\n" % randint(*RETRY_MS))

    def offer(self, events: bytes) -> bool:
        """See `Sink`: nothing goes without waiting here, so all of it is owed."""
        if self._open:
            self._pieces.extend(events[begin : begin + PIECE_BYTES] for begin in range(0, len(events), PIECE_BYTES))
            self._owed += len(events)
            self._spoke_at = trio.current_time()
        return False

    async def flush(self) -> bool:
        """See `Sink`."""
        async with self._handing:
            while self._pieces:
                piece = self._pieces.popleft()
                self._owed -= len(piece)
                await self._hand_over(piece)
        return self._open

    async def close(self, code: int, reason: str) -> None:
        """See `Sink`; a stream of events has neither code nor reason, it ends."""
        if not self._open:
            await trio.lowlevel.checkpoint()
            return
        self._open = False
        with trio.move_on_after(self._write_seconds) as scope:
            await self.flush()
            await self._hand_over(b"", last=True)
        if scope.cancelled_caught:
            self._give_up("write_seconds")

    def abort(self) -> None:
        """See `Sink`."""
        self._give_up(None)

    @property
    def owed(self) -> int:
        """See `Sink`."""
        return self._owed

    async def run_comments(self) -> None:
        """Say something, which means nothing, where nothing was said for long; until cancelled, or closed."""
        while self._open:
            await trio.sleep_until(self._spoke_at + SILENCE_SECONDS)
            if trio.current_time() >= self._spoke_at + SILENCE_SECONDS:
                self.offer(COMMENT)
                await self.flush()

    async def _hand_over(self, piece: bytes, *, last: bool = False) -> None:
        with trio.move_on_after(self._write_seconds) as scope:
            await self._send({"type": "http.response.body", "body": piece, "more_body": not last})
        if scope.cancelled_caught:
            self._give_up("write_seconds")

    def _give_up(self, reason: str | None) -> None:
        self._open = False
        self._pieces.clear()
        self._owed = 0
        self._abort(reason)
