"""What a block of code leaves behind: threads and open files, tasks, cursors."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import trio

from kafka_chat.chat.resume_cursor import ResumeCursor, TopicOffsets

from .broker_client import Broker

SETTLE_SECONDS = 20.0  # librdkafka's threads end a little after their client


@asynccontextmanager
async def nothing_left(*, brokers: str | None = None) -> AsyncIterator[None]:
    """Check that after the block there are no more threads and open files than before.

    Connections to brokers and the threads that serve them are not counted, for the tests' own clients come and go
    between the same two ends; each of librdkafka's clients has one main thread, and those are counted.

    Args:
        brokers: `host:port[,host:port…]`.

    Raises:
        AssertionError: at the end of a block that did not raise itself; names what is left.
    """
    named = {urlsplit(f"//{address}").port for address in brokers.split(",")} if brokers else set()
    ports = {*named, *Broker.ports}
    gc.collect()  # a client of librdkafka in a circle of references ends when that is found; that is no leak
    threads, files = _threads(), _files(ports)
    yield
    gc.collect()
    with trio.move_on_after(SETTLE_SECONDS):
        while _threads() - threads or len(_files(ports)) > len(files):  # noqa: ASYNC110 - the kernel tells of neither
            await trio.sleep(0.05)
    left_threads, left_files = _threads() - threads, _files(ports)
    assert not left_threads, f"threads are left: {dict(left_threads)}"
    new = sorted(f"{descriptor} {shown}" for descriptor, shown in left_files.items() if files.get(descriptor) != shown)
    assert len(left_files) <= len(files), f"{len(left_files) - len(files)} more files are open than before; new are {new}"


def task_tree() -> str:
    """Return the tasks of the run, children under parents, each with the last lines of its stack."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_shown(root, "")) if root is not None else ""


def tasks() -> list[str]:
    """Return the names of all tasks of the run, sorted: what there is more of afterwards has leaked."""
    root = trio.lowlevel.current_root_task()
    return sorted(task.name for task in _tasks_under(root)) if root is not None else []


class CursorsHeld:
    """Counts parsed cursors, and places of one in a topic, that came to this process since this was made."""

    def __init__(self) -> None:
        gc.collect()
        self._before = _cursors()

    def __call__(self) -> int:
        """How many there are now; those in cycles of garbage count."""
        return _cursors() - self._before


def _threads() -> Counter[str]:
    """Count the threads of this process by what the kernel calls them, without trio's idle workers and librdkafka's per broker."""
    idle = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("Trio thread ")}
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            name = (entry / "comm").read_text().strip()
            if int(entry.name) not in idle and (name == "rdk:main" or not name.startswith("rdk:")):
                found[name] += 1
    return found


def _files(broker_ports: set[int | None]) -> dict[int, str]:
    """Return what is open: descriptor -> what it is, connections with brokers left out."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile, such as the one that lists them
            shown = os.readlink(f"/proc/self/fd/{name}")
            if shown.startswith("socket:"):
                ends = _ends(int(name))
                if ends & broker_ports:
                    continue
                shown += f" between the ports {sorted(ends)}"
            if not shown.startswith("/proc/"):
                found[int(name)] = shown
    return found


def _ends(descriptor: int) -> set[int]:
    """Return the ports of a TCP socket's two ends, as far as it has them."""
    ends = set()
    with contextlib.closing(socket.socket(fileno=os.dup(descriptor))) as copy:
        for ask in (copy.getsockname, copy.getpeername):
            with contextlib.suppress(OSError):  # not connected
                address = ask()
                if isinstance(address, tuple) and isinstance(address[1], int):
                    ends.add(address[1])
    return ends


def _tasks_under(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks_under(child)


def _shown(task: trio.lowlevel.Task, indent: str) -> Iterator[str]:
    yield f"{indent}{task.name}"
    frames = task.iter_await_frames() if isinstance(cast("object", task.coro), Coroutine) else ()
    places = [f"{indent}    {frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in frames]
    yield from [entry for entry in places if f"{os.sep}trio{os.sep}_core{os.sep}" not in entry][-6:]
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _shown(child, indent + "  ")


def _cursors() -> int:
    return sum(isinstance(thing, ResumeCursor | TopicOffsets) for thing in gc.get_objects())
