"""One worker as the supervisor sees it: a child process, and the channel to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import trio

from ..changes import Changes
from .channel import TO_SUPERVISOR, AskMetrics, Begin, Metrics, MetricsOfAll, Ping, Pong, Serving, TellMetrics, WorkerChannel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..settings.model import Settings
    from ..telemetry.exposition import Family


def working_folder() -> str | None:
    """Return the working directory; None if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


# `kafka-chat` does not import modules from the working directory, `python -m kafka_chat` does; workers do the same.
_SAFE_PATH = [] if sys.path and sys.path[0] in ("", working_folder()) else ["-P"]
WORKER = (sys.executable, *_SAFE_PATH, "-m", "kafka_chat.worker")
END_SECONDS = 10.0  # after the drain, for a worker to close its Kafka clients; then it is killed
# How long a serving worker may be silent before it is killed and replaced. Its clients are disconnected, and reconnect to the
# others; while it hangs they get nothing, and the kernel keeps giving it new ones. Nothing blocks a worker's loop for a second.
SILENT_SECONDS = 30.0
PINGS = 6  # unanswered pings in that time before it is killed: after a pause of the machine, there was only one ping
METRICS_SECONDS = 2.0  # for a worker to send its metrics


class WorkerProcess:
    """A child process that serves until it is told to end, or ends by itself.

    Attributes:
        number: the worker's number, which its successor inherits.
        pid: the process id; 0 before the start.
        serving: set once it serves.
        ended: set once it has ended.
        code: the exit code after its end; negative: the signal that ended it.
        terminating: whether `terminate` was called.
    """

    def __init__(self, number: int, settings: Settings, *, command: Sequence[str], silent_seconds: float = SILENT_SECONDS) -> None:
        self.number = number
        self.pid = 0
        self.serving = trio.Event()
        self.ended = trio.Event()
        self.code = 0
        self._settings = settings
        self._command = command
        self._ping_seconds = silent_seconds / PINGS
        self._answers = 0  # pongs received
        self._process: trio.Process | None = None
        self._terminating = trio.Event()
        self._began = trio.current_time()
        self._ended_at = self._began
        self._problem: str | None = None
        self._metrics: list[Family] = []
        self._metrics_came: trio.Event | None = None  # set while it is asked for metrics
        self._questions = Changes()  # requests for its metrics

    async def run(self, listener: socket.socket, metrics_of_all: Callable[[], Awaitable[str]]) -> None:
        """Start it, and return once it has ended. A cancel kills it.

        Args:
            listener: the bound socket to listen on.
            metrics_of_all: returns the answer to its `AskMetrics`.
        """
        try:
            process, channel = await self._start(listener)
        except OSError as error:
            self.code, self._problem = 1, f"cannot be started: {error}"
        else:
            await self._be_with(process, channel, metrics_of_all)
        finally:
            self._ended_at = trio.current_time()
            self.ended.set()

    async def _start(self, listener: socket.socket) -> tuple[trio.Process, WorkerChannel]:
        ours, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), listener.fileno())
        with theirs:
            try:
                process = await trio.lowlevel.open_process(
                    [*self._command, str(self.number), *map(str, descriptors)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    process_group=0,  # a terminal's Ctrl-C is for us; we tell it to stop
                )
            except BaseException:
                ours.close()
                raise
        return process, WorkerChannel(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def _be_with(self, process: trio.Process, channel: WorkerChannel, metrics_of_all: Callable[[], Awaitable[str]]) -> None:
        self._process, self.pid = process, process.pid
        if self._terminating.is_set():
            process.terminate()
        try:
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._talk, channel, metrics_of_all)
                tasks.start_soon(self._end_in_time, process)
                await process.wait()
                tasks.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # it is about to end
                self.code = await process.wait()
                await channel.aclose()

    def terminate(self) -> None:
        """Tell it to drain and end (SIGTERM); it is killed if it does not."""
        if not self._terminating.is_set():
            self._terminating.set()
            if self._process is not None:
                self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    @property
    def terminating(self) -> bool:
        """Whether `terminate` was called."""
        return self._terminating.is_set()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended_at if self.ended.is_set() else trio.current_time()) - self._began

    @property
    def ended_cleanly(self) -> bool:
        """Whether it drained when told to. A worker that never served had no clients to drain."""
        return self.terminating and (self.code == 0 or not self.serving.is_set())

    @property
    def reason(self) -> str:
        """How it ended, for the operator."""
        if self._problem is not None:
            return self._problem
        return f"exit code {self.code}" if self.code >= 0 else f"killed by {_signal_name(-self.code)}"

    async def metrics(self) -> list[Family] | None:
        """Return its metrics; None if it does not answer in time."""
        if self._metrics_came is None:  # otherwise the last request is unanswered; there is at most one at a time
            self._metrics_came = trio.Event()
            self._questions.note()
        came = self._metrics_came
        with trio.move_on_after(METRICS_SECONDS):
            await came.wait()
            return self._metrics
        return None

    async def _talk(self, channel: WorkerChannel, metrics_of_all: Callable[[], Awaitable[str]]) -> None:
        async with trio.open_nursery() as answering:
            await channel.send(Begin(self._settings))
            answering.start_soon(self._ask_metrics, channel)
            answering.start_soon(self._watch, channel)
            try:
                async for message in channel.received(TO_SUPERVISOR):
                    match message:
                        case Serving():
                            self.serving.set()
                        case Pong():
                            self._answers += 1
                        case AskMetrics():  # one at a time
                            answering.start_soon(_answer, channel, metrics_of_all)
                        case Metrics():
                            self._metrics = message.families
                            if self._metrics_came is not None:
                                self._metrics_came.set()
                                self._metrics_came = None
            except msgspec.DecodeError as error:  # another version has been installed since this process started
                self._problem = f"is not understood: {error}"
                self.kill()
            answering.cancel_scope.cancel()

    async def _ask_metrics(self, channel: WorkerChannel) -> None:
        asked = 0
        while True:
            await self._questions.wait_beyond(asked)
            asked = self._questions.version
            await channel.send(TellMetrics())

    async def _watch(self, channel: WorkerChannel) -> None:
        """Kill a serving worker that does not answer."""
        await self.serving.wait()
        unanswered = 0
        while unanswered < PINGS:
            answers = self._answers
            await channel.send(Ping())
            await trio.sleep(self._ping_seconds)
            unanswered = 0 if self._answers > answers else unanswered + 1
        if not self.terminating:  # a draining worker has its own time limit
            self._problem = f"did not answer for {PINGS * self._ping_seconds:g} s, and was killed"
            self.kill()

    async def _end_in_time(self, process: trio.Process) -> None:
        await self._terminating.wait()
        await trio.sleep(self._settings.server.drain_seconds + END_SECONDS)
        process.kill()


async def _answer(channel: WorkerChannel, metrics_of_all: Callable[[], Awaitable[str]]) -> None:
    await channel.send(MetricsOfAll(await metrics_of_all()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
