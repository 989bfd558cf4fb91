"""The commands of who uses or looks after a service that runs: `listen`, `send`, `check`."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import trio

from .errors import SettingsError
from .terminal import colours_wanted, harmless, message_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    class Commands(Protocol):
        """What `ArgumentParser.add_subparsers` returns."""

        def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:
            """Add a command."""


URL = "http://127.0.0.1:8001"
FAILED = 1


def add_listen(commands: Commands) -> None:
    """Add `listen USER`."""
    listen = commands.add_parser(
        "listen",
        help="print a user's messages as they come",
        description="Print a user's messages as they come, until Ctrl-C. Comes back when the connection is lost; what is sent meanwhile "
        "is not shown.",
    )
    listen.add_argument("user", metavar="USER", help="whose messages")
    listen.add_argument("--chat", action="append", default=[], metavar="CHAT", help="subscribe the user to this chat first; repeatable")
    _add_client_flags(listen, "print each frame as it came, a line each")
    listen.set_defaults(run=_listen)


def add_send(commands: Commands) -> None:
    """Add `send CHAT TEXT`."""
    send = commands.add_parser(
        "send",
        help="send a message to a chat",
        description="Send a message to a chat, and print where Kafka has put it. The service has to allow it (sending.enabled).",
    )
    send.add_argument("chat", metavar="CHAT", help="which chat")
    send.add_argument("text", metavar="TEXT", help="what to say")
    send.add_argument("--as", dest="sender", required=True, metavar="NAME", help="who says it")
    send.add_argument("--tag", metavar="T", help="its tag")
    _add_client_flags(send, "print what the service answers")
    send.set_defaults(run=_send)


def add_check(commands: Commands) -> None:
    """Add `check`."""
    check = commands.add_parser(
        "check",
        help="say what is wrong with settings, brokers and topics",
        description="Look at the settings, the brokers, the topics and the file limit, say what is wrong, and change nothing. "
        "Exit code 0: all is well; 1: something is not; 2: the settings are wrong.",
    )
    check.add_argument("--config", type=Path, metavar="FILE", help="read this file instead of ./config.yaml")
    check.add_argument("--bootstrap", dest="kafka.bootstrap_servers", metavar="HOST:PORT[,...]", help="look at these Kafka brokers")
    check.add_argument("--json", action="store_true", help="print what was found as JSON, a line each")
    check.set_defaults(run=_check)


def _add_client_flags(parser: argparse.ArgumentParser, json_help: str) -> None:
    parser.add_argument("--url", default=URL, metavar="URL", help=f"where the service is ({URL})")
    parser.add_argument("--json", action="store_true", help=json_help)


def _listen(parsed: argparse.Namespace) -> int:
    from .client import listen, subscribe  # late: `--help` need not wait for them

    colours = colours_wanted(sys.stdout)

    def deliver(frame: str) -> None:
        _print(frame if parsed.json else message_line(frame, now=datetime.now().astimezone(), colours=colours))

    async def run() -> None:
        if parsed.chat:
            await subscribe(parsed.url, parsed.user, parsed.chat)
            _tell(f"subscribed {parsed.user} to {', '.join(parsed.chat)}")
        await listen(parsed.url, parsed.user, deliver=deliver, tell=_tell)

    return _run(run)


def _send(parsed: argparse.Namespace) -> int:
    from .client import ask

    async def run() -> None:
        body = {"sender": parsed.sender, "text": parsed.text, "tag": parsed.tag}
        answer = await ask(parsed.url, "POST", f"/send-message/chat/{quote(parsed.chat, safe='')}", body)
        _print(json.dumps(answer) if parsed.json else "{topic}/{partition} at offset {offset}".format(**answer))

    return _run(run)


def _check(parsed: argparse.Namespace) -> int:
    from .check import check
    from .kafka.check import properties_problem
    from .settings_sources import load_settings, variable

    servers = getattr(parsed, "kafka.bootstrap_servers")
    flags = {} if servers is None else {"kafka.bootstrap_servers": servers}
    settings = load_settings(config_file=parsed.config, environ=os.environ, flags=flags, check_properties=properties_problem)
    if settings.kafka.bootstrap_servers is None:
        raise SettingsError(f"no broker is named: --bootstrap HOST:PORT, {variable('kafka.bootstrap_servers')}, or config.yaml")
    logging.getLogger("kafka_chat").addHandler(logging.NullHandler())  # what librdkafka says on the way is in the findings
    findings = trio.run(check, settings)
    for finding in findings:
        if parsed.json:
            _print(json.dumps({"subject": finding.subject, "ok": finding.ok, "sentence": finding.sentence}))
        else:
            _print(f"{'ok     ' if finding.ok else 'WRONG  '}{finding.subject}: {harmless(finding.sentence)}")
    return 0 if all(finding.ok for finding in findings) else FAILED


def _run(run: Callable[[], Awaitable[None]]) -> int:
    """Run until it ends or is interrupted; an error that is alone comes out as itself, however deep its nursery."""
    try:
        trio.run(run)
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, BrokenPipeError):
            if group.subgroup(kind) is not None:
                raise kind from group
        raise
    return 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell(sentence: str) -> None:
    sys.stderr.write(f"kafka-chat: {harmless(sentence)}\n")
    sys.stderr.flush()
