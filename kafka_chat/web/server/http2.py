"""What hypercorn holds for a stream of HTTP/2 whose client does not read, with a bound."""

from __future__ import annotations

from hypercorn.protocol.h2 import BUFFER_LOW_WATER, StreamBuffer


class ChatStreamBuffer(StreamBuffer):
    """Lets a sender go on once little is left, where hypercorn does so once little could be taken.

    A client that gives no room at all takes nothing, which hypercorn 0.18 takes for an empty buffer: it grows without end.
    """

    async def pop(self, max_length: int) -> bytes:
        """Return what may be sent now, at most so many bytes."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[: len(data)]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data
