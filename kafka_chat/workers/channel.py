"""The messages between the supervisor and a worker: JSON lines on a socket pair, which closes when either ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from ..settings.model import Settings  # noqa: TC001 - msgspec looks at it
from ..telemetry.exposition import Family  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READ_BYTES = 65_536

M = TypeVar("M")


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message: serve with these settings. Secrets are thus in no argument list and no file."""

    settings: Settings


class TellMetrics(msgspec.Struct, frozen=True, tag=True):
    """Answer with `Metrics`."""


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Answer with `Pong` at once; a serving worker is never too busy for that."""


class MetricsOfAll(msgspec.Struct, frozen=True, tag=True):
    """The answer to `AskMetrics`, in Prometheus' text format."""

    text: str


class Serving(msgspec.Struct, frozen=True, tag=True):
    """The worker listens; its service is open."""


class Pong(msgspec.Struct, frozen=True, tag=True):
    """The worker's loop runs."""


class AskMetrics(msgspec.Struct, frozen=True, tag=True):
    """This worker was asked for the metrics of all; answer with `MetricsOfAll`."""


class Metrics(msgspec.Struct, frozen=True, tag=True):
    """The worker's own metrics."""

    families: list[Family]


ToWorker = Begin | TellMetrics | Ping | MetricsOfAll
ToSupervisor = Serving | AskMetrics | Pong | Metrics

TO_WORKER: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
TO_SUPERVISOR: msgspec.json.Decoder[ToSupervisor] = msgspec.json.Decoder(ToSupervisor)


class WorkerChannel:
    """One end of the socket pair."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._sending = trio.Lock()

    async def send(self, message: ToWorker | ToSupervisor) -> None:
        """Send a message; does nothing once the other end is gone.

        Shielded, because half a line would corrupt the stream. The other end always reads, and no more is in flight than
        the kernel buffers for a stopped process.
        """
        with trio.CancelScope(shield=True):
            async with self._sending:
                try:
                    await self._stream.send_all(msgspec.json.encode(message) + b"\n")
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return  # the receiving task of this channel notices

    async def received(self, decoder: msgspec.json.Decoder[M]) -> AsyncIterator[M]:
        """Yield messages until the other end is gone.

        Args:
            decoder: `TO_WORKER` in a worker, `TO_SUPERVISOR` in the supervisor.

        Raises:
            DecodeError: the other end has another version.
        """
        buffer = bytearray()
        while True:
            while (end := buffer.find(b"\n")) >= 0:
                message = decoder.decode(buffer[:end])
                del buffer[: end + 1]
                yield message
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            buffer += data

    async def aclose(self) -> None:
        """Close this end."""
        await self._stream.aclose()
