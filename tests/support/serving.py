"""The service as it really runs: in this process, as the installed command, or under plain hypercorn."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from kafka_chat.application import create
from kafka_chat.assembly import open_service
from kafka_chat.settings.model import Settings
from kafka_chat.settings.sources import variable
from kafka_chat.web.server.serve import serve

from .deadlines import HANG_SECONDS
from .http_client import http
from .leaks import nothing_left
from .processes import end_process, start_process, temporary_folder
from .with_tokens import show_tokens, with_issuer

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from kafka_chat.service import Service
    from kafka_chat.telemetry.metrics import Telemetry


class Server:
    """The service in this process.

    Attributes:
        url: `http://127.0.0.1:port`.
        app: the application.
    """

    def __init__(self, url: str, app: QuartTrio, stop: trio.Event, ended: trio.Event) -> None:
        self.url = url
        self.app = app
        self._stop = stop
        self._ended = ended

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def service(self) -> Service:
        """What the routes ask for."""
        service: Service = self.app.service  # type: ignore[attr-defined]  # set while the lifespan lasts
        return service

    def shut_down(self) -> None:
        """Trigger what SIGTERM triggers; `ended` says when it is over."""
        self._stop.set()

    async def ended(self, *, seconds: float = HANG_SECONDS) -> None:
        """Wait until the server has ended."""
        with trio.fail_after(seconds):
            await self._ended.wait()


@asynccontextmanager
async def serving(settings: Settings, *, telemetry: Telemetry | None = None, check_leaks: bool = True) -> AsyncIterator[Server]:
    """Serve while the block runs, and end by the shutdown trigger, as the command does.

    Args:
        settings: with port 0, as `Chats.settings_for` gives them.
        telemetry: another one than the service would make for itself.
        check_leaks: afterwards threads and open files have to be what they were. Not for blocks that begin or end
            something of their own in between, such as a second server.

    Raises:
        BaseExceptionGroup: the service died. What the block itself raises leaves it as it is.
    """
    asked, settings = settings, with_issuer(settings)
    app = create(settings)
    if settings is not asked:
        show_tokens(app)
    if telemetry is not None:
        app.open_service = partial(open_service, settings, telemetry=telemetry)
    stop, ended = trio.Event(), trio.Event()
    failure: BaseException | None = None

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(app, settings, shutdown_trigger=stop.wait, task_status=task_status)
        ended.set()

    async with nothing_left(brokers=settings.kafka.bootstrap_servers) if check_leaks else _unchecked():
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(HANG_SECONDS):
                    urls = await nursery.start(run)
                try:
                    yield Server(urls[0], app, stop, ended)
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    stop.set()
        except BaseExceptionGroup as group:
            if failure is None or isinstance(failure, trio.Cancelled) or list(group.exceptions) != [failure]:
                raise
            raise failure from None


@asynccontextmanager
async def _unchecked() -> AsyncIterator[None]:
    yield


class ChildServer:
    """The service in a process of its own.

    Attributes:
        url: `http://127.0.0.1:port`.
        pid: of the process.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.url = ""
        self.pid = process.pid
        self._process = process
        self._folder = folder

    @property
    def returncode(self) -> int | None:
        """How it ended; negative: by that signal; None while it runs."""
        return self._process.poll()

    @property
    def stdout(self) -> str:
        """Its output so far."""
        return (self._folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """Its log so far."""
        return (self._folder / "stderr").read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()

    async def wait(self, *, seconds: float = HANG_SECONDS) -> int:
        """Wait until it has ended, and return its return code."""
        with trio.fail_after(seconds):
            ending = os.pidfd_open(self.pid) if self.returncode is None else None
            if ending is not None:
                try:
                    await trio.lowlevel.wait_readable(ending)
                finally:
                    trio.lowlevel.notify_closing(ending)
                    os.close(ending)
        return self._process.wait(5)

    async def wait_for(self, pattern: str, *, seconds: float = HANG_SECONDS) -> re.Match[str]:
        """Wait until what it said, on stdout or stderr, has a match of `pattern`, and return that.

        Raises:
            AssertionError: it ended, or did not say so in time; with all that it said.
        """
        with trio.move_on_after(seconds):
            while True:
                ended = self.returncode is not None
                if (match := re.search(pattern, self.stdout) or re.search(pattern, self.stderr)) is not None:
                    return match
                if ended:
                    break
                await trio.sleep(0.02)
        said = f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        raise AssertionError(f"{pattern!r} was not said (return code {self.returncode})\n{said}")


@asynccontextmanager
async def spawned(*arguments: str, settings: Settings | None = None, env: Mapping[str, str] | None = None) -> AsyncIterator[ChildServer]:
    """Run the installed command `kafka-chat serve` while the block runs; ready once it has begun.

    Args:
        arguments: after `serve`; `--port 0` is there already.
        settings: handed over in the environment, as far as they differ from the defaults.
        env: further variables.
    """
    command = [str(Path(sys.executable).with_name("kafka-chat")), "serve", "--port", "0", *arguments]
    async with child(command, settings=settings, env=env) as server:
        server.url = (await server.wait_for(r"listening on (http://[^\s,]+)"))[1]
        yield server


@asynccontextmanager
async def spawned_hypercorn(
    *arguments: str, settings: Settings | None = None, env: Mapping[str, str] | None = None
) -> AsyncIterator[ChildServer]:
    """Run the application under hypercorn's own command while the block runs; ready once it has begun.

    Args:
        arguments: further ones of hypercorn.
        settings: handed over in the environment, as far as they differ from the defaults.
        env: further variables.
    """
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", *arguments, "kafka_chat.asgi:app"]
    async with child(command, settings=settings, env=env) as server:
        server.url = (await server.wait_for(r"Running on (http://\S+)"))[1]
        yield server


@asynccontextmanager
async def child(
    command: Sequence[str],
    *,
    settings: Settings | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> AsyncIterator[ChildServer]:
    """Run any command in an empty folder, without what the environment of the tests says to us; ended with the block.

    Args:
        command: program and arguments.
        settings: handed over in the environment, as far as they differ from the defaults.
        env: further variables.
        stdout: a descriptor for it, instead of a file that `ChildServer.stdout` reads.
        stderr: likewise.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_CHAT_")}
    environment = {**inherited, **(environment_of(settings) if settings is not None else {}), **(env or {})}
    with temporary_folder("kafka_chat-child-") as folder:
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = start_process(
                command,
                stdout=out if stdout is None else stdout,
                stderr=err if stderr is None else stderr,
                env=environment,
                cwd=folder,
            )
        server = ChildServer(process, folder)
        try:
            yield server
            if server.returncode is None:
                server.terminate()
                await server.wait()
        finally:
            end_process(process, kill=True)


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment variables that give these settings, defaults left out."""
    defaults = msgspec.to_builtins(Settings())
    variables = {}
    for section, values in msgspec.to_builtins(settings).items():
        for key, value in values.items():
            if value == defaults[section][key]:
                continue
            if isinstance(value, dict):
                variables.update({variable(f"{section}.{key}.{name.replace('.', '_')}"): text for name, text in value.items()})
            else:
                variables[variable(f"{section}.{key}")] = _text(value)
    return variables


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else "null" if value is None else str(value)


async def until_ready(server: Server | ChildServer, *, seconds: float = HANG_SECONDS) -> None:
    """Wait until clients may be sent there: brokers answer, and the subscriptions are read."""
    with trio.fail_after(seconds):
        while (answer := await http(server.url, "GET", "/ready")).status != 200:
            assert answer.status == 503, answer
            await trio.sleep(0.02)  # it tells nobody of a change
