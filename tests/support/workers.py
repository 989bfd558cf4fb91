"""Information about the workers of one service, from its log and from /proc."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .clients import open_raw, receive_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .clients import RawClient
    from .serving import ChildServer

_SERVING = re.compile(r"supervisor\[\d+\] kafka_chat: worker\.serving worker=(\d+) pid=(\d+)")


def serving_pids(server: ChildServer) -> dict[int, int]:
    """Return worker -> pid, of those that have served last."""
    return {int(number): int(pid) for number, pid in _SERVING.findall(server.stderr)}


async def pid_of_user(server: ChildServer, username: str) -> int:
    """Return which process has a user's first socket."""
    found = await server.wait_for(rf"worker-\d+\[(\d+)\] kafka_chat: session\.opened session=\S+ user={re.escape(username)} ")
    return int(found[1])


@asynccontextmanager
async def sockets_on_each(server: ChildServer, count: int = 3) -> AsyncIterator[dict[int, list[RawClient]]]:
    """Connect user after user until each worker has at least this many clients, and yield pid -> clients."""
    async with AsyncExitStack() as stack:
        clients: dict[int, list[RawClient]] = {pid: [] for pid in serving_pids(server).values()}
        number = 0
        while min(map(len, clients.values())) < count:
            user, number = f"user{number}", number + 1
            client = await stack.enter_async_context(open_raw(server.url, receive_path(user)))
            clients[await pid_of_user(server, user)].append(client)
        yield clients


def is_running(pid: int) -> bool:
    """Return whether a process is there, and not only its exit code."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_gone(pids: list[int], *, seconds: float) -> None:
    """Wait until none of these processes is left."""
    with trio.fail_after(seconds):
        while any(map(is_running, pids)):  # noqa: ASYNC110 - they are nobody's children any more
            await trio.sleep(0.02)
