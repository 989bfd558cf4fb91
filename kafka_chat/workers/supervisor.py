"""Runs `server.workers` processes that serve on one port, and restarts those that end.

This process holds the port, and each worker serves on its own inherited socket (`shared_port.py`). A worker that ends unexpectedly
does not affect the others: its socket is closed, so the kernel gives its connections to them until its successor serves. The
embedded broker runs here, so that all workers share it.
"""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import SettingsError
from ..nursery import open_tasks
from ..process.open_files import connections_limit
from ..process.standard_streams import exit_now
from ..telemetry.exposition import Family, exposition
from .shared_port import reserved
from .worker_process import SILENT_SECONDS, WORKER, WorkerProcess

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

    from ..settings.model import Settings
    from ..telemetry.metrics import WorkersTelemetry
    from .shared_port import SharedPort

OK = 0
FAILED = 1
WRONG_SETTINGS = 2
INTERRUPTED = 128 + signal.SIGINT

STEADY_SECONDS = 60.0  # the end of a worker that ran this long is not a failed start
FIRST_WAIT_SECONDS = 0.5  # after the second end in a row; then twice as long each time
LONGEST_WAIT_SECONDS = 30.0
LEAVING_SECONDS = 10.0  # from the SIGHUP of an ending shell to the end of its terminal; in practice a fraction of a second
LOOK_SECONDS = 0.1  # how often to check meanwhile


async def supervise(
    settings: Settings,
    *,
    reload: Callable[[], Settings],
    announce: Callable[[list[str]], None],
    telemetry: WorkersTelemetry,
    command: Sequence[str] = WORKER,
    silent_seconds: float = SILENT_SECONDS,
) -> int:
    """Serve with `settings.server.workers` processes until SIGTERM or SIGINT; a second SIGINT ends everything at once.

    SIGHUP replaces the workers one by one: each new one serves before the old one drains.

    Args:
        settings: where to listen, how many workers, and the workers' settings.
        reload: returns the settings for workers after SIGHUP, or raises `SettingsError`.
        announce: called with the URLs once all workers serve.
        telemetry: records the supervisor's events.
        command: starts a worker; its number and two descriptors are appended.
        silent_seconds: how long a serving worker may be silent before it is replaced.

    Returns:
        The exit code: 0 if all workers ended as requested; 2 if one of the first workers found its settings wrong, and
        printed that; otherwise 1.

    Raises:
        OSError: the address is not available.
        SettingsError: the limit of open files is too low.
    """
    connections_limit(settings)
    terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()  # nohup ignores it
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        port = stack.enter_context(reserved(settings.server.host, settings.server.port))
        if settings.kafka.embedded and settings.kafka.bootstrap_servers is None:
            from ..kafka.embedded_broker import open_embedded_broker

            address = await stack.enter_async_context(open_embedded_broker())
            settings = msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, bootstrap_servers=address))
        supervisor = _Supervisor(settings, port, telemetry, command, terminal=terminal, silent_seconds=silent_seconds)
        return await supervisor.run(signals, reload, announce)


class _Supervisor:
    """The supervisor of all workers.

    Args:
        settings: the workers' settings.
        port: the workers' port.
        telemetry: reports their events.
        command: starts a worker.
        terminal: whether this process was started in a terminal, so that it ends with it.
        silent_seconds: how long a worker may be silent.

    Attributes:
        port: theirs.
        telemetry: reports their events.
        stopping: set at the shutdown.
        workers: all processes, including those that drain.
    """

    def __init__(
        self,
        settings: Settings,
        port: SharedPort,
        telemetry: WorkersTelemetry,
        command: Sequence[str],
        *,
        terminal: bool,
        silent_seconds: float,
    ) -> None:
        self.port = port
        self.telemetry = telemetry
        self.stopping = trio.Event()
        self.workers: set[WorkerProcess] = set()
        self._settings = settings
        self._command = command
        self._silent_seconds = silent_seconds
        self._exit_code = OK
        self._slots = [_Slot(number, self) for number in range(settings.server.workers)]
        self._had_terminal = terminal
        self._leaving = trio.CancelScope()

    async def run(self, signals: AsyncIterable[int], reload: Callable[[], Settings], announce: Callable[[list[str]], None]) -> int:
        """Run until asked to stop, and return the exit code."""
        renew, renewals = trio.open_memory_channel[None](1)
        async with open_tasks() as tasks:
            tasks.start_soon(self._run_signals, signals, renew, tasks)
            tasks.start_soon(self._run_renewals, renewals, reload)
            tasks.start_soon(self._announce, announce)
            tasks.start_soon(self.telemetry.run_left_out)
            async with trio.open_nursery() as slots:
                for slot in self._slots:
                    slots.start_soon(slot.run)
        return self._exit_code

    def stop(self, exit_code: int = OK) -> None:
        """Begin the shutdown."""
        self._exit_code = self._exit_code or exit_code
        self.port.close()
        self.stopping.set()

    async def run_worker(self, worker: WorkerProcess, listener: socket.socket) -> None:
        """Run a worker until it has ended, and report it."""
        self.workers.add(worker)
        try:
            async with open_tasks() as tasks:
                tasks.start_soon(self._tell_serving, worker)
                await worker.run(listener, self.metrics)
        finally:
            self.workers.discard(worker)
            if worker.serving.is_set():
                self.telemetry.worker_stopped_serving()
        if worker.terminating:
            if not worker.ended_cleanly:
                self._exit_code = self._exit_code or FAILED
            self.telemetry.worker_ended(number=worker.number, pid=worker.pid, reason=worker.reason, seconds=worker.seconds)

    def new_worker(self, number: int) -> WorkerProcess:
        """Return a worker with the current settings."""
        return WorkerProcess(number, self._settings, command=self._command, silent_seconds=self._silent_seconds)

    async def metrics(self) -> str:
        """Return the metrics of all workers that answer in time, and our own."""
        found: dict[str, list[Family]] = {}

        async def ask(worker: WorkerProcess) -> None:
            if (families := await worker.metrics()) is not None:
                found[str(worker.number)] = families

        async with trio.open_nursery() as asking:
            for worker in self.workers:
                if worker.serving.is_set() and not worker.terminating:  # and not one that is replaced by a successor of the same number
                    asking.start_soon(ask, worker)
        return exposition({**dict(sorted(found.items())), "supervisor": self.telemetry.families()}).decode()

    async def _tell_serving(self, worker: WorkerProcess) -> None:
        await worker.serving.wait()
        self.telemetry.worker_serving(number=worker.number, pid=worker.pid, seconds=worker.seconds)

    async def _announce(self, announce: Callable[[list[str]], None]) -> None:
        for slot in self._slots:
            await slot.first_served.wait()
        announce([self.port.url])

    async def _run_signals(self, signals: AsyncIterable[int], renew: trio.MemorySendChannel[None], tasks: trio.Nursery) -> None:
        """Handle signals.

        Args:
            signals: the received signals.
            renew: gets requests to replace all workers.
            tasks: runs the check of the terminal.
        """
        async for number in signals:
            # A closing terminal also sends SIGHUP; then the process should end.
            if number == signal.SIGHUP and (not self._had_terminal or _has_terminal()):
                with suppress(trio.WouldBlock):  # a renewal is pending already
                    renew.send_nowait(None)
                if self._had_terminal:
                    tasks.start_soon(self._stop_with_terminal)
            elif self.stopping.is_set() and number == signal.SIGINT:
                for worker in self.workers:
                    worker.kill()
                exit_now(INTERRUPTED)  # at once, because a user who pressed it twice does not want to wait
            else:
                self.stop()

    async def _stop_with_terminal(self) -> None:
        """Stop if the terminal closes soon: an ending shell forwards SIGHUP while its terminal still exists."""
        self._leaving.cancel()  # the check of an earlier SIGHUP
        with trio.move_on_after(LEAVING_SECONDS) as self._leaving:
            while _has_terminal():  # noqa: ASYNC110 - the kernel has no event for that but one that typing sets off, too
                await trio.sleep(LOOK_SECONDS)
            self.stop()

    async def _run_renewals(self, renewals: AsyncIterable[None], reload: Callable[[], Settings]) -> None:
        async for _ in renewals:
            before = self._settings
            try:
                self._settings = _kept(before, reload())
                connections_limit(self._settings)
            except SettingsError as error:
                self._settings = before
                self.telemetry.workers_not_renewed(reason=str(error))
                continue
            for slot in self._slots:
                if (problem := await slot.renew()) is not None:
                    self._settings = before
                    self.telemetry.workers_not_renewed(reason=f"the new worker {slot.number} did not start serving: {problem}")
                    break
            else:
                self.telemetry.workers_renewed(workers=len(self._slots))


class _Renewal:
    """A request to replace a worker; at its end, how the new one ended if it did not start serving."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.problem: str | None = None


class _Slot:
    """One of `server.workers`: a process, later its successor, and so on.

    Attributes:
        number: from 0.
        first_served: set once a worker has served here.
    """

    def __init__(self, number: int, supervisor: _Supervisor) -> None:
        self.number = number
        self.first_served = trio.Event()
        self._supervisor = supervisor
        self._requested = trio.Event()
        self._renewal: _Renewal | None = None

    async def renew(self) -> str | None:
        """Replace the worker with one with the current settings; return how the new one ended if it did not start serving."""
        renewal = self._renewal = _Renewal()
        self._requested.set()
        await renewal.over.wait()
        return renewal.problem

    async def run(self) -> None:
        """Keep a worker running until asked to stop."""
        stopping = self._supervisor.stopping
        ends_in_a_row = 0
        async with trio.open_nursery() as processes:
            while not stopping.is_set():
                # A new socket each time: connections that the last worker did not accept are reset now, and clients reconnect to the
                # others; otherwise they would wait until the new worker serves.
                try:
                    listener = self._supervisor.port.bind()
                except OSError as error:
                    pid, reason, seconds = 0, f"has no socket: {error}", 0.0
                else:
                    with listener:
                        worker = await self._serve(processes, listener)
                    if worker.code == WRONG_SETTINGS and not self.first_served.is_set():
                        self._supervisor.stop(WRONG_SETTINGS)
                    pid, reason, seconds = worker.pid, worker.reason, worker.seconds
                if stopping.is_set():
                    break
                ends_in_a_row = 1 if seconds >= STEADY_SECONDS else ends_in_a_row + 1
                wait = _wait_seconds(ends_in_a_row)
                self._supervisor.telemetry.worker_lost(number=self.number, pid=pid, reason=reason, seconds=seconds, again_in_seconds=wait)
                with trio.move_on_after(wait):
                    await stopping.wait()

    async def _serve(self, processes: trio.Nursery, listener: socket.socket) -> WorkerProcess:
        """Serve until a worker has ended unexpectedly, or the shutdown; return the last worker."""
        worker = await self._started(processes, listener)
        while not worker.ended.is_set():
            await _first_of(worker.ended.wait, self._requested.wait, self._supervisor.stopping.wait)
            if self._supervisor.stopping.is_set():
                listener.close()  # ours first, so that the port is closed as soon as the worker closes its own
                worker.terminate()
                await worker.ended.wait()
            elif self._renewal is not None:
                successor = await self._started(processes, listener)
                if successor.serving.is_set() and not successor.ended.is_set():
                    worker.terminate()
                    worker = successor
                self._end_renewal(None if worker is successor else successor.reason)
        self._end_renewal(None)  # the next start is the renewal
        return worker

    async def _started(self, processes: trio.Nursery, listener: socket.socket) -> WorkerProcess:
        """Start a worker, and return it once it serves or has ended, or at the shutdown."""
        worker = self._supervisor.new_worker(self.number)
        processes.start_soon(self._supervisor.run_worker, worker, listener)
        await _first_of(worker.serving.wait, worker.ended.wait, self._supervisor.stopping.wait)
        if worker.serving.is_set():
            self.first_served.set()
        elif self._supervisor.stopping.is_set():
            worker.terminate()
        return worker

    def _end_renewal(self, problem: str | None) -> None:
        if self._renewal is not None:
            self._requested = trio.Event()
            renewal, self._renewal = self._renewal, None
            renewal.problem = problem
            renewal.over.set()


def _wait_seconds(ends_in_a_row: int) -> float:
    """Return how long to wait before the next start."""
    return 0.0 if ends_in_a_row < 2 else min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (ends_in_a_row - 2))


def _kept(before: Settings, after: Settings) -> Settings:
    """Return new settings, with the old port, number of workers and embedded broker, which cannot change while this process runs."""
    server = msgspec.structs.replace(after.server, host=before.server.host, port=before.server.port, workers=before.server.workers)
    kafka = before.kafka if before.kafka.embedded or after.kafka.embedded else after.kafka
    return msgspec.structs.replace(after, server=server, kafka=kafka)


def _has_terminal() -> bool:
    """Return whether this process has a terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return when the first of the waits returns."""
    async with trio.open_nursery() as waiting:

        async def wait(one: Callable[[], Awaitable[None]]) -> None:
            await one()
            waiting.cancel_scope.cancel()

        for one in waits:
            waiting.start_soon(wait, one)
