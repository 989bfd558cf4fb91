"""A client under test: a command that prints what it receives, a JSON object per line."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.support.processes import end_process, last_lines, start_process

ANSWER_SECONDS = 60.0

Told = tuple[object, ...]


class Client:
    """The running command.

    Attributes:
        told: all that it has told, but states: `("message", chat, partition, offset, text)`,
            `("gap", chat, partition, first_lost, first_left, cause)`, `("skipped", chat, partition, offset, cause)`, `("final", code)`.
        messages: the frames, whole.
        reason: the final one's.
        states: all of them.
        answers: what else it tells, for a client that does more.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.messages: list[dict[str, Any]] = []
        self.reason = ""
        self.states: list[object] = []
        self.answers: list[dict[str, Any]] = []
        self.ended = trio.Event()
        self._news = trio.Condition()

    async def tells(self, *expected: Told, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until it has told as much as is expected, from the beginning on, and check that it is that."""
        await self._until(lambda: len(self.told) >= len(expected), seconds)
        assert self.told == list(expected)

    async def answers_to(self, count: int, *, seconds: float = ANSWER_SECONDS) -> list[dict[str, Any]]:
        """Wait for this many answers, and return them."""
        await self._until(lambda: len(self.answers) >= count, seconds)
        return self.answers

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with self._news:
                while not true() and not self.ended.is_set():
                    await self._news.wait()

    async def take(self, line: bytes) -> None:
        """Note a line of its output."""
        for kind, about in json.loads(line).items():
            if kind == "message":
                self.messages.append(about)
                self.told.append((kind, about["chat"], about["meta"]["partition"], about["meta"]["offset"], about["text"]))
            elif kind == "gap":
                self.told.append((kind, *(about[name] for name in ("chat", "partition", "first_lost", "first_left", "cause"))))
            elif kind == "skipped":
                self.told.append((kind, *(about[name] for name in ("chat", "partition", "offset", "cause"))))
            elif kind == "final":
                self.told.append((kind, about["code"]))
                self.reason = about["reason"]
            elif kind == "state":
                self.states.append(about)
            else:
                self.answers.append({kind: about})
        async with self._news:
            self._news.notify_all()

    async def end(self) -> None:
        """Note that nothing more comes."""
        self.ended.set()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def running(command: Sequence[str], *arguments: str, folder: Path) -> AsyncIterator[Client]:
    """Run the command while the block runs; what it says on stderr is shown where the block fails."""
    client = Client()
    ours, theirs = os.pipe()
    errors = folder / "stderr"
    with errors.open("wb") as stderr:
        process = start_process([*command, *arguments], stdout=theirs, stderr=stderr)
    os.close(theirs)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, ours, client)
            yield client
            nursery.cancel_scope.cancel()
    except BaseException as error:
        error.add_note(f"the client told {client.told}, was {client.states}, and said on stderr:\n{last_lines(errors)}")
        raise
    finally:
        end_process(process, kill=True)


async def _listen(descriptor: int, client: Client) -> None:
    async with trio.lowlevel.FdStream(descriptor) as stream:
        rest = b""
        async for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                await client.take(line)
    assert not rest, rest
    await client.end()
