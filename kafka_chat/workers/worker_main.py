"""Runs a worker, from the supervisor's first message to the exit code."""

from __future__ import annotations

import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from ..changes import Changes
from ..errors import Overloaded, ServiceFailed, SettingsError
from ..process.gc_tuning import collect_seldom
from ..process.log_output import log_to_stderr
from ..process.standard_streams import unblocked
from ..telemetry.metrics import Telemetry
from .channel import TO_WORKER, AskMetrics, Begin, Metrics, MetricsOfAll, Ping, Pong, Serving, WorkerChannel

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping

    from .channel import ToWorker

OK = 0
FAILED = 1
WRONG_SETTINGS = 2
ANSWER_SECONDS = 5.0  # for the supervisor, which gives the workers less


def main() -> int:
    """Serve until asked to stop or until the supervisor is gone, and return the exit code of `kafka-chat serve`."""
    number, channel, bound = (int(argument) for argument in sys.argv[1:])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # SIGHUP is for the supervisor, which ends workers with SIGTERM
    with unblocked("stdout", "stderr"):
        log = log_to_stderr(process=f"worker-{number}")
        try:
            return trio.run(_work, channel, bound, log.dropped)
        except SettingsError as error:
            sys.stderr.write(f"kafka-chat: {error}\n")
            return WRONG_SETTINGS


async def _work(channel_fd: int, bound: int, dropped_lines: Callable[[], Mapping[str, int]]) -> int:
    """Serve; SIGTERM, SIGINT and the end of the channel start the drain.

    Raises:
        SettingsError: it cannot serve with its settings.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        channel = WorkerChannel(trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=channel_fd))))
        messages = channel.received(TO_WORKER)
        try:
            begin = await anext(messages, None)
        except msgspec.DecodeError as error:
            raise SettingsError(f"the supervisor is another version; restart it: {error}") from error
        if not isinstance(begin, Begin):
            return FAILED  # the supervisor is gone
        # Imported late: the import takes half a second, and the supervisor's message is checked first.
        from ..application import create
        from ..web.server.serve import serve

        stop, telemetry, asking = trio.Event(), Telemetry(dropped_lines=dropped_lines), _Asking(channel)
        telemetry.ask_all = asking.metrics_of_all
        app = create(begin.settings, telemetry=telemetry)
        collect_seldom()
        try:
            async with trio.open_nursery() as listening:
                listening.start_soon(_stop_at_signal, signals, stop)
                listening.start_soon(_listen, messages, channel, telemetry, asking, stop)
                async with trio.open_nursery() as serving:
                    await serving.start(partial(serve, app, begin.settings, bound=bound, shutdown_trigger=stop.wait))
                    if app.service is not None:  # the server listens even if the service has just failed
                        await channel.send(Serving())
                listening.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if group.subgroup(ServiceFailed) is None:  # logged where it happened, with its traceback
                raise
            return FAILED
    return OK


async def _stop_at_signal(signals: AsyncIterable[int], stop: trio.Event) -> None:
    async for _ in signals:
        stop.set()


async def _listen(
    messages: AsyncIterable[ToWorker], channel: WorkerChannel, telemetry: Telemetry, asking: _Asking, stop: trio.Event
) -> None:
    """Handle the supervisor's messages, and stop when it is gone, however it ended."""
    async for message in messages:
        if isinstance(message, MetricsOfAll):
            asking.answered(message.text)
        elif isinstance(message, Ping):
            await channel.send(Pong())
        else:
            await channel.send(Metrics(telemetry.families()))
    stop.set()


class _Asking:
    """Asks the supervisor for the metrics of all workers when this one is asked for them."""

    def __init__(self, channel: WorkerChannel) -> None:
        self._line = channel
        self._one_at_a_time = trio.Lock()
        self._answers = Changes()
        self._text = ""

    async def metrics_of_all(self) -> bytes:
        """Return them in Prometheus' text format.

        Raises:
            Overloaded: no answer.
        """
        async with self._one_at_a_time:
            answers = self._answers.version
            with trio.move_on_after(ANSWER_SECONDS):
                await self._line.send(AskMetrics())
                await self._answers.wait_beyond(answers)
                return self._text.encode()
            raise Overloaded("the supervisor of the workers does not answer; try again later")

    def answered(self, text: str) -> None:
        """Take the answer, possibly a late one with slightly older values."""
        self._text = text
        self._answers.note()
