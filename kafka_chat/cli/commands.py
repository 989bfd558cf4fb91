"""The commands other than `serve`: `listen`, `send`, `cursor`, `check`."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from ..errors import RequestError, SettingsError
from ..nursery import open_tasks
from .printing import OutputFailed, Printer, check_stdout, print_line, read_stdin
from .terminal import colours_wanted, harmless
from .token_file import VARIABLE as TOKEN_VARIABLE
from .token_file import token_of, token_source

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence

    class Commands(Protocol):
        """What `ArgumentParser.add_subparsers` returns."""

        def add_parser(self, name: str, *, help: str, description: str, epilog: str) -> argparse.ArgumentParser:
            """Add a command."""


URL = "http://127.0.0.1:8001"
FAILED = 1
REWIND = 1000  # the service's limit: docs/protocol.md, "Asking for it"

_TIMES = "a time such as 2026-11-25T10:00:00Z, Unix milliseconds, or a span before now such as -15m"


def add_listen(commands: Commands) -> None:
    """Add `listen USER`."""
    listen = commands.add_parser(
        "listen",
        help="print a user's messages as they come",
        description="Print a user's messages as they come, until Ctrl-C. Reconnects when the connection is lost or the service is down, "
        "and misses nothing: messages sent in the meantime are printed then, and messages lost for good are reported.",
        epilog="Messages go to stdout, everything else to stderr. Exit codes: 0 --until is reached, or the reader of stdout has gone; "
        "1 refused, with one sentence that says why; 2 wrong flags; 130 ended by Ctrl-C. "
        "Example: kafka-chat listen ann --chat room1 --rewind 20",
    )
    listen.add_argument("user", metavar="USER", help="whose messages")
    listen.add_argument("--chat", action="append", default=[], metavar="CHAT", help="subscribe the user to this chat first; repeatable")
    listen.add_argument(
        "--chat-only", action="append", default=[], metavar="CHAT", help="only this chat, subscribed or not; stores nothing; repeatable"
    )
    listen.add_argument("--from", dest="from_", metavar="TIME", help=f"begin here: latest, earliest, {_TIMES}")
    listen.add_argument("--rewind", default="", metavar="N", help="begin with the last N messages of each chat, 1 to 1000")
    listen.add_argument("--until", metavar="TIME", help=f"end with the last message older than {_TIMES}")
    listen.add_argument("--tag", action="append", default=[], metavar="T", help="only messages with this tag, or with none; repeatable")
    listen.add_argument("--sender", action="append", default=[], metavar="NAME", help="only messages from this sender; repeatable")
    beginning = listen.add_mutually_exclusive_group()
    beginning.add_argument("--cursor", metavar="TEXT", help="begin after this cursor, or after the message with this id")
    beginning.add_argument(
        "--cursor-file", type=Path, metavar="FILE", help="begin where the last run with this file ended, and save there where this run ends"
    )
    listen.add_argument(
        "--meta", action="store_true", help="also print where each message is in Kafka; with --json everything that is known"
    )
    _add_client_flags(listen, "print each message as one line of JSON")
    listen.set_defaults(run=_listen)


def add_send(commands: Commands) -> None:
    """Add `send CHAT TEXT`."""
    send = commands.add_parser(
        "send",
        help="send a message to a chat",
        description="Send a message to a chat, and print where Kafka stored it. The service must allow sending (sending.enabled).",
        epilog="Exit codes: 0 Kafka has the message, and its place is on stdout; 1 not sent, with one sentence that says why; "
        "2 wrong flags, or stdout cannot be written, with a sentence that says whether the message was sent; 130 ended by Ctrl-C. "
        'Example: kafka-chat send room1 "hello" --as bob',
    )
    send.add_argument("chat", metavar="CHAT", help="which chat")
    send.add_argument("text", metavar="TEXT", help="the text; - reads it from stdin")
    send.add_argument("--as", dest="sender", required=True, metavar="NAME", help="the sender")
    send.add_argument("--tag", metavar="T", help="its tag")
    _add_client_flags(send, "print the service's answer")
    send.set_defaults(run=_send)


def add_cursor(commands: Commands) -> None:
    """Add `cursor TEXT`."""
    cursor = commands.add_parser(
        "cursor",
        help="explain a cursor",
        description="Explain a cursor, or the id of a message. Needs no service.",
        epilog="Exit codes: 0 explained; 2 not a cursor, or wrong flags. Example: kafka-chat cursor AgEC... --topic kafka.chat.room1",
    )
    cursor.add_argument("text", metavar="TEXT", help="the cursor; - reads it from stdin")
    cursor.add_argument(
        "--topic", action="append", default=[], metavar="TOPIC", help="a topic to recognize: cursors hold only hashes of names; repeatable"
    )
    cursor.add_argument("--json", action="store_true", help="print JSON")
    cursor.set_defaults(run=_cursor)


def joined_spans(arguments: Sequence[str]) -> list[str]:
    """Return arguments with each time span such as -15m joined to its flag, because argparse takes it as a flag."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] in ("--from", "--until") and re.fullmatch(r"-\d+[a-z]", argument):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def add_check(commands: Commands) -> None:
    """Add `check`."""
    check = commands.add_parser(
        "check",
        help="check settings, keys, brokers and topics",
        description="Check the settings, the issuers' keys, the brokers, the topics and the limit of open files, and report what is wrong. "
        "Changes nothing. Takes at most 30 seconds.",
        epilog="Exit codes: 0 nothing is wrong; 1 something is; 2 the settings are wrong, or name no broker. "
        "Example: kafka-chat check --bootstrap kafka1:9092",
    )
    check.add_argument("--config", type=Path, metavar="FILE", help="read this file instead of ./config.yaml")
    check.add_argument("--bootstrap", dest="kafka.bootstrap_servers", metavar="HOST:PORT[,...]", help="check these Kafka brokers")
    check.add_argument("--json", action="store_true", help="print each finding as one line of JSON")
    check.set_defaults(run=_check)


def _add_client_flags(parser: argparse.ArgumentParser, json_help: str) -> None:
    parser.add_argument("--url", default=URL, metavar="URL", help=f"where the service is ({URL})")
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"read a token from this file, - reads it from stdin; without it {TOKEN_VARIABLE} is used, if set",
    )


def _listen(parsed: argparse.Namespace) -> int:
    from .cursor_file import CursorFile
    from .listen import Wanted, listen  # late, so that `--help` is fast

    _open_stdout(as_json=parsed.json)
    wanted = Wanted(
        url=parsed.url,
        user=parsed.user,
        subscribe_to=parsed.chat,
        from_=parsed.from_,
        rewind=_rewind(parsed.rewind),
        until=parsed.until,
        chats=parsed.chat_only,
        tags=parsed.tag,
        senders=parsed.sender,
        cursor=parsed.cursor,
        file=None if parsed.cursor_file is None else CursorFile(parsed.cursor_file),
        as_json=parsed.json,
        meta=parsed.meta,
        token=token_source(parsed.token_file, os.environ),
        colours=colours_wanted(sys.stdout),
    )
    return _run(partial(_until_terminated, partial(listen, wanted, show=Printer(sys.stdout).print, tell=_tell)))


def _rewind(text: str) -> int:
    """Return the number of messages of `--rewind`; numbers below 1 are an error here, since the client takes 0 as "not given"."""
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= REWIND:
        raise SettingsError(f'--rewind is "{text}"; a whole number from 1 to {REWIND} is needed')
    return int(text)


async def _until_terminated(run: Callable[[], Awaitable[None]]) -> int:
    """Run until it ends or SIGTERM comes, which ends it between two lines, so that every printed line is noted."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals, trio.CancelScope() as running:

        async def watch() -> None:
            async for _ in signals:
                running.cancel()

        async with open_tasks() as tasks:
            tasks.start_soon(watch)
            await run()
    return 128 + signal.SIGTERM if running.cancelled_caught else 0


def _cursor(parsed: argparse.Namespace) -> int:
    from ..chat.resume_cursor import parse
    from .cursor_words import facts_of, unmatched, words_of

    text = read_stdin().strip() if parsed.text == "-" else parsed.text
    try:
        cursor = parse(text)
    except RequestError as error:
        raise SettingsError(str(error)) from error
    _open_stdout(as_json=parsed.json)
    for line in [json.dumps(facts_of(cursor, parsed.topic))] if parsed.json else words_of(cursor, parsed.topic):
        print_line(line)
    for topic in unmatched(cursor, parsed.topic):
        _tell(f"{topic} is not in the cursor; a topic's whole name is needed, such as kafka.chat.room1")
    return 0


def _send(parsed: argparse.Namespace) -> int:
    from ..client import ask, quoted

    _open_stdout(as_json=parsed.json)
    if parsed.text == "-" and parsed.token_file == "-":
        raise SettingsError("TEXT and --token-file are both -; only one of them can be read from stdin")
    token = token_of(token_source(parsed.token_file, os.environ))
    text = read_stdin().removesuffix("\n") if parsed.text == "-" else parsed.text
    body = {"sender": parsed.sender, "text": text, "tag": parsed.tag}
    answer: dict[str, object] = {}

    async def run() -> None:
        answer.update(await ask(parsed.url, "POST", f"/send-message/chat/{quoted(parsed.chat)}", body, token=token))

    _run(run)
    where = f"{answer.get('topic')}/{answer.get('partition')} at offset {answer.get('offset')}"
    try:
        print_line(json.dumps(answer) if parsed.json else where)
    except OutputFailed as error:  # the message is sent, and must not be sent again
        raise OutputFailed(f"the message is in {where}, but {error}") from error
    return 0


def _check(parsed: argparse.Namespace) -> int:
    from ..kafka.properties_check import properties_problem
    from ..settings.sources import NAME_A_BROKER, load_settings
    from .check import check

    servers = getattr(parsed, "kafka.bootstrap_servers")
    flags = {} if servers is None else {"kafka.bootstrap_servers": servers}
    settings = load_settings(config_file=parsed.config, environ=os.environ, flags=flags, check_properties=properties_problem)
    if settings.kafka.bootstrap_servers is None and not settings.kafka.embedded:
        raise SettingsError(f"no broker is named: {NAME_A_BROKER}")
    logging.getLogger("kafka_chat").addHandler(logging.NullHandler())  # the findings include librdkafka's errors
    _open_stdout(as_json=parsed.json)
    findings = trio.run(check, settings)
    for finding in findings:
        if parsed.json:
            print_line(json.dumps({"subject": finding.subject, "ok": finding.ok, "sentence": finding.sentence}))
        else:
            print_line(f"{'ok     ' if finding.ok else 'WRONG  '}{finding.subject}: {harmless(finding.sentence)}")
    return 0 if all(finding.ok for finding in findings) else FAILED


def _run(run: Callable[[], Awaitable[int | None]]) -> int:
    """Run until it ends or is interrupted; a single error is raised without its group, at any depth of nurseries."""
    try:
        # Interrupt at checkpoints only, so that every printed line is noted.
        return trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True) or 0
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, BrokenPipeError):
            if group.subgroup(kind) is not None:
                raise kind from group
        raise


def _open_stdout(*, as_json: bool) -> None:
    """Make stdout accept any text: JSON is written as UTF-8; in other output, characters missing in the encoding are escaped.

    Raises:
        OutputFailed: it is closed.
    """
    check_stdout()
    if isinstance(sys.stdout, io.TextIOWrapper):
        if as_json:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


def _tell(sentence: str) -> None:
    sys.stderr.write(f"kafka-chat: {harmless(sentence)}\n")
    sys.stderr.flush()
