"""The command line: `kafka-chat serve`, `listen`, `send`, `cursor`, `check`, `token`."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import sys
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..errors import KafkaChatError, ServiceFailed, SettingsError
from ..process.gc_tuning import collect_seldom
from ..process.log_output import log_to_stderr
from ..process.standard_streams import exit_now, fill_closed, unblocked
from ..settings.sources import FLAGS, NAME_A_BROKER, load_settings, with_embedded_broker
from .commands import add_check, add_cursor, add_listen, add_send, joined_spans
from .new_token import add_token
from .printing import check_stdout, discard_stdout, print_line
from .terminal import harmless

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator, Sequence

    from _typeshed import SupportsWrite

    from ..settings.model import Settings
    from ..web.app import ChatApp

OK = 0
FAILED = 1
WRONG_SETTINGS = 2  # like argparse
INTERRUPTED = 128 + signal.SIGINT


class _Failed(Exception):
    """The command cannot be carried out, or has failed; the message is a sentence."""


class _Ended(Exception):
    """The workers have ended unexpectedly, and have logged why.

    Attributes:
        code: the exit code.
    """

    def __init__(self, code: int) -> None:
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: without the name of the command; None: those of the process.

    Returns:
        0; 1 if the command failed; 2 for wrong settings or flags; 130 after Ctrl-C (for `serve`, after the second).
    """
    fill_closed()
    with unblocked("stderr"):
        return _run(_parser(), sys.argv[1:] if arguments is None else arguments)


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    try:
        parsed = parser.parse_args(joined_spans(arguments))
        if parsed.run is None:
            parser.print_help(sys.stderr)
            return WRONG_SETTINGS
        return parsed.run(parsed) or OK
    except SettingsError as error:
        _say(str(error))
        return WRONG_SETTINGS
    except (_Failed, KafkaChatError) as error:
        _say(str(error))
        return FAILED
    except _Ended as error:
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout is gone; do not flush it at exit, either
        discard_stdout()
        return OK


class _Parser(argparse.ArgumentParser):
    """A parser that reports a stdout that cannot be written, which argparse ignores for `--help` and `--version`."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if file is sys.stdout:
            check_stdout()
            print_line(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kafka-chat",
        description="Delivers the chats of a Kafka cluster over WebSockets.",
        epilog="Exit codes: 0 success; 1 failure, with one sentence that says why; 2 wrong settings or flags; 130 ended by Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"kafka-chat {version('kafka-chat')}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the chats of a Kafka cluster over WebSockets",
        description="Serve the chats of a Kafka cluster over WebSockets until SIGTERM or Ctrl-C. "
        "Settings come from config.yaml, then the environment (KAFKA_CHAT_SERVER__PORT), then these flags.",
    )
    serve.add_argument("--config", type=Path, metavar="FILE", help="read this file instead of ./config.yaml")
    serve.add_argument(FLAGS["server.host"], dest="server.host", metavar="H", help="listen on this address (127.0.0.1)")
    serve.add_argument(FLAGS["server.port"], dest="server.port", metavar="N", help="listen on this port (8001); 0 picks a free one")
    serve.add_argument(FLAGS["server.workers"], dest="server.workers", metavar="N", help="serve with this many processes (1)")
    broker = serve.add_mutually_exclusive_group()
    broker.add_argument(
        FLAGS["kafka.embedded"],
        dest="kafka.embedded",
        action="store_true",
        default=None,
        help="use a broker inside this process, in memory, to try things out; the default where no broker is named",
    )
    broker.add_argument(
        FLAGS["kafka.bootstrap_servers"], dest="kafka.bootstrap_servers", metavar="HOST:PORT[,...]", help="use these Kafka brokers"
    )
    serve.set_defaults(run=_serve)
    add_listen(commands)
    add_send(commands)
    add_cursor(commands)
    add_check(commands)
    add_token(commands)
    return parser


def _serve(parsed: argparse.Namespace) -> None:
    """Run `kafka-chat serve` until it is asked to stop."""
    with unblocked("stdout"), _ended_by_sigterm():
        _serve_with(_settings(parsed), reload=partial(_settings, parsed))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process at once, until the server handles it.

    That is the default, but not for process 1 of a container, for which the kernel ignores signals without a handler.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: exit_now(OK))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve_with(settings: Settings, *, reload: Callable[[], Settings]) -> None:
    """Serve with these settings; `reload` returns those for workers after SIGHUP."""
    if settings.kafka.bootstrap_servers is None and not settings.kafka.embedded:
        if settings.kafka.embedded is False:
            raise SettingsError(f"no broker is named, and kafka.embedded is false: {NAME_A_BROKER}")
        settings = with_embedded_broker(settings)
        _say("no broker is named, so the embedded one is used: all messages and subscriptions are gone when this process ends")
    if settings.server.workers > 1:
        _supervise(settings, reload)
        return
    from ..application import create
    from ..telemetry.metrics import Telemetry

    log = log_to_stderr()
    app = create(settings, telemetry=Telemetry(dropped_lines=log.dropped))
    collect_seldom()
    trio.run(_serve_until_signalled, app, settings)


def _settings(parsed: argparse.Namespace) -> Settings:
    """Return the current settings of file, environment and flags."""
    # Imported late, so that `--help` does not load Kafka's client, and a wrong setting is reported before the web framework loads.
    from ..kafka.properties_check import properties_problem

    flags = {key: value for key in FLAGS if (value := getattr(parsed, key)) is not None}
    return load_settings(config_file=parsed.config, environ=os.environ, flags=flags, check_properties=properties_problem)


def _supervise(settings: Settings, reload: Callable[[], Settings]) -> None:
    """Serve with several processes until asked to stop."""
    from ..telemetry.metrics import WorkersTelemetry
    from ..workers.supervisor import supervise

    log = log_to_stderr(process="supervisor")
    announce = partial(_announce, settings=settings)
    try:
        code = trio.run(
            partial(supervise, settings, reload=reload, announce=announce, telemetry=WorkersTelemetry(dropped_lines=log.dropped))
        )
    except OSError as error:
        if (sentence := _why_not_listening(error, settings)) is None:
            raise
        raise _Failed(sentence) from error
    if code != OK:
        raise _Ended(code)


async def _serve_until_signalled(app: ChatApp, settings: Settings) -> None:
    """Serve; SIGTERM or SIGINT starts the drain.

    Raises:
        _Failed: the address is not available, or the service has failed.
    """
    from ..web.server.serve import serve

    stop = trio.Event()
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as watching:
                watching.start_soon(_watch_signals, signals, stop)
                async with trio.open_nursery() as serving:
                    urls: list[str] = await serving.start(partial(serve, app, settings, shutdown_trigger=stop.wait))
                    if app.service is not None:  # the server binds its port even if the service has just failed
                        _announce(urls, settings)
                watching.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        for error in _leaves(group):
            if isinstance(error, ServiceFailed):  # logged where it happened, with its traceback
                raise _Failed("the service has failed; the log line above says why") from group
            if isinstance(error, OSError) and (sentence := _why_not_listening(error, settings)) is not None:
                raise _Failed(sentence) from group
        raise


async def _watch_signals(signals: AsyncIterable[int], stop: trio.Event) -> None:
    """Start the drain at the first signal; end the process at a later Ctrl-C."""
    async for number in signals:
        if stop.is_set() and number == signal.SIGINT:
            exit_now(INTERRUPTED)  # at once, because a user who pressed it twice does not want to wait
        stop.set()


def _announce(urls: Sequence[str], settings: Settings) -> None:
    """Print on stdout where it listens, and which brokers it uses."""
    broker = "the embedded broker" if settings.kafka.embedded else f"the brokers {settings.kafka.bootstrap_servers}"
    sys.stdout.write(f"listening on {', '.join(urls)} with {broker}\n")
    sys.stdout.flush()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and its nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _why_not_listening(error: OSError, settings: Settings) -> str | None:
    """Return a sentence that says what to do about a bind error, or None for another error."""
    host, port = settings.server.host, settings.server.port
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port"
    if error.errno == errno.EACCES:
        return f"this user may not listen on port {port} of {host}; choose one above 1023 with --port"
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return f"{host} is not an address of this machine; choose another with --host"
    return None


def _say(sentence: str) -> None:
    sys.stderr.write(f"kafka-chat: {harmless(sentence)}\n")
    sys.stderr.flush()
