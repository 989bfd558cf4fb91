"""The first connection reports the server's shutdown to all who wait for it, whenever either comes."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.web.server.idle import FIRST_WORDS_SECONDS, IdleConnections
from kafka_chat.web.server.shutdown import Shutdown


@pytest.mark.parametrize("order", ["it waits first", "a connection comes first"])
async def test_who_waits_is_told_once_the_first_connection_is(nursery: trio.Nursery, order: str):
    shutdown, terminated, never = Shutdown(), trio.Event(), trio.Event()
    told = []

    async def wait() -> None:
        await shutdown.begun()
        told.append(True)

    if order == "it waits first":
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
    shutdown.comes_with(terminated.wait)
    shutdown.comes_with(never.wait)  # a later connection's, of the same server
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert told == []
    terminated.set()
    await wait_all_tasks_blocked()
    assert told == [True] * (2 if order == "it waits first" else 1)


async def test_connections_that_rest_end_at_once_and_those_that_have_just_come_have_a_moment(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
):
    ended = []

    class Connection:
        def __init__(self, name: str) -> None:
            self.name = name

        def end(self) -> None:
            ended.append((self.name, trio.current_time() - begun))
            idle.leave(self)

        def give_way(self) -> None:
            raise AssertionError("nobody needs its place")

    shutdown, terminated = Shutdown(), trio.Event()
    idle = IdleConnections(shutdown)
    nursery.start_soon(idle.run)
    idle.rest(Connection("rests"))
    idle.expect(new := Connection("new"))
    idle.expect(Connection("says nothing"))
    shutdown.comes_with(terminated.wait)
    await trio.sleep(1)
    assert ended == []
    begun = trio.current_time()
    terminated.set()
    await trio.sleep(FIRST_WORDS_SECONDS / 2)
    assert ended == [("rests", 0)]
    idle.rest(new)  # it was answered meanwhile
    await trio.sleep(FIRST_WORDS_SECONDS)
    assert ended == [("rests", 0), ("new", FIRST_WORDS_SECONDS), ("says nothing", FIRST_WORDS_SECONDS)]
