"""However many sockets are ready at once, an iteration of the loop serves a few of them, and none is forgotten."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.web.server.ready_sockets import MOST_IN_A_ROUND, ReadySockets
from tests.support.deadlines import HANG_SECONDS
from tests.support.loop_steps import loop_rounds

MANY = 400


@contextmanager
def pairs(count: int) -> Iterator[list[tuple[trio.socket.SocketType, socket.socket]]]:
    """Make pairs of sockets: ours, and a client's."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            made.append((stack.enter_context(trio.socket.from_stdlib_socket(ours)), theirs))
        yield made


async def test_of_many_that_are_ready_at_once_a_round_wakes_a_few_in_the_order_in_which_they_came(nursery: trio.Nursery):
    ready, woken = ReadySockets(), []
    nursery.start_soon(ready.run)
    await wait_all_tasks_blocked()

    async def read(number: int, ours: trio.socket.SocketType) -> None:
        await ready.wait_readable(ours)
        assert ours.fileno() >= 0
        woken.append(number)

    with pairs(MANY) as made, trio.fail_after(HANG_SECONDS), loop_rounds() as rounds:
        async with trio.open_nursery() as readers:
            for number, (ours, _) in enumerate(made):
                readers.start_soon(read, number, ours)
            await wait_all_tasks_blocked()
            rounds.most_steps = 0
            for _, theirs in made:
                theirs.send(b"x")
    assert rounds.most_steps <= MOST_IN_A_ROUND + 4  # this test, the one that gives turns, and trio's own
    displaced = max(abs(place - number) for place, number in enumerate(woken))
    assert displaced <= MOST_IN_A_ROUND  # trio shuffles a round


async def test_a_newcomer_and_one_that_speaks_do_not_wait_for_the_many_that_are_gone(nursery: trio.Nursery):
    ready = ReadySockets()
    nursery.start_soon(ready.run)
    await wait_all_tasks_blocked()
    order: list[str] = []

    async def read(name: str, ours: trio.socket.SocketType, *, is_new: bool = False) -> None:
        await ready.wait_readable(ours, is_new=is_new)
        order.append(name)

    with pairs(MANY + 2) as made, trio.fail_after(HANG_SECONDS):
        async with trio.open_nursery() as readers:
            for ours, _ in made[2:]:
                readers.start_soon(read, "gone", ours)
            readers.start_soon(read, "speaks", made[0][0])
            await wait_all_tasks_blocked()
            for _, theirs in made[2:]:
                theirs.close()
            made[0][1].send(b"x")
            made[1][1].send(b"x")
            await read("new", made[1][0], is_new=True)
        assert order.index("new") <= 3 * MOST_IN_A_ROUND
        assert order.index("speaks") <= 3 * MOST_IN_A_ROUND
        assert Counter(order) == {"gone": MANY, "speaks": 1, "new": 1}


async def test_who_waits_is_freed_where_its_socket_is_closed_and_the_next_one_of_that_number_is_waited_for(nursery: trio.Nursery):
    ready, freed = ReadySockets(), []
    nursery.start_soon(ready.run)
    await wait_all_tasks_blocked()

    async def wait(ours: trio.socket.SocketType) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ready.wait_readable(ours)
        freed.append(ours)

    with pairs(1) as made, trio.fail_after(HANG_SECONDS):
        ((ours, _),) = made
        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait, ours)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await ready.wait_readable(ours)
            descriptor = ours.fileno()
            ready.forget(descriptor)
            ours.close()
        assert freed == [ours]
        with pytest.raises(trio.ClosedResourceError):
            await ready.wait_readable(ours)
        with pairs(1) as again:
            ((next_one, theirs),) = again
            assert next_one.fileno() == descriptor
            theirs.send(b"x")
            await ready.wait_readable(next_one)


async def test_reader_and_writer_of_one_socket_wait_side_by_side(nursery: trio.Nursery):
    ready, done = ReadySockets(), []
    nursery.start_soon(ready.run)
    await wait_all_tasks_blocked()
    with pairs(1) as made, trio.fail_after(HANG_SECONDS):
        ((ours, theirs),) = made
        bare: socket.socket = ours._sock  # type: ignore[attr-defined]
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += bare.send(b"x" * 65536)

        async def reading() -> None:
            await ready.wait_readable(ours)
            done.append("read")

        async def writing() -> None:
            await ready.wait_writable(ours)
            done.append("write")

        async with trio.open_nursery() as both:
            both.start_soon(reading)
            both.start_soon(writing)
            await wait_all_tasks_blocked()
            while filled:
                filled -= len(theirs.recv(65536))
            await wait_all_tasks_blocked(0.05)
            assert done == ["write"]
            theirs.send(b"x")
        assert done == ["write", "read"]


async def test_without_its_task_and_once_that_has_ended_trio_is_waited_with():
    ready = ReadySockets()
    with pairs(2) as made, trio.fail_after(HANG_SECONDS):
        (first, theirs), (second, others) = made
        others.send(b"x")
        await ready.wait_readable(second)  # before it runs
        await ready.wait_writable(second)
        looks = []

        async def read() -> None:
            while True:
                await ready.wait_readable(first)
                with suppress(BlockingIOError):
                    looks.append(first._sock.recv(1))  # type: ignore[attr-defined]
                    return
                looks.append(b"")

        async with trio.open_nursery() as reading:
            async with trio.open_nursery() as turns:
                turns.start_soon(ready.run)
                await wait_all_tasks_blocked()
                reading.start_soon(read)
                await wait_all_tasks_blocked()
                assert looks == []
                turns.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            assert looks == [b""]
            theirs.send(b"x")
        assert looks == [b"", b"x"]
        await ready.wait_writable(second)


async def test_where_the_system_has_no_epoll_trio_is_waited_with(nursery: trio.Nursery):
    ready = ReadySockets(None)
    nursery.start_soon(ready.run)
    await wait_all_tasks_blocked()
    with pairs(1) as made, trio.fail_after(HANG_SECONDS):
        ((ours, theirs),) = made
        await ready.wait_writable(ours)
        theirs.send(b"x")
        await ready.wait_readable(ours, is_new=True)
        ready.forget(ours.fileno())


@pytest.mark.parametrize("seed", range(5))
async def test_in_any_order_of_speaking_leaving_closing_and_giving_up_nobody_is_left_waiting(seed: int, nursery: trio.Nursery):
    dice, ready = random.Random(seed), ReadySockets()
    nursery.start_soon(ready.run)
    await wait_all_tasks_blocked()
    heard: Counter[int] = Counter()
    said: Counter[int] = Counter()

    async def read_all(number: int, ours: trio.socket.SocketType) -> None:
        bare: socket.socket = ours._sock  # type: ignore[attr-defined]
        while True:
            with trio.move_on_after(dice.random() * 0.002):  # gives up, and waits again
                try:
                    await ready.wait_readable(ours, is_new=not heard[number])
                except trio.ClosedResourceError:
                    return
                try:
                    data = bare.recv(10)
                except BlockingIOError:
                    continue
                except OSError:  # closed after its turn was given
                    return
                if not data:
                    return
                heard[number] += len(data)

    with pairs(50) as made, trio.fail_after(HANG_SECONDS):
        async with trio.open_nursery() as readers:
            for number, (ours, _) in enumerate(made):
                readers.start_soon(read_all, number, ours)
            left = set(range(50))
            closed = set()
            while left:
                number = dice.choice(sorted(left))
                ours, theirs = made[number]
                what = dice.random()
                if what < 0.9:
                    theirs.send(b"x" * 3)
                    said[number] += 3
                elif what < 0.97:
                    theirs.close()
                    left.remove(number)
                else:
                    ready.forget(ours.fileno())
                    ours.close()
                    left.remove(number)
                    closed.add(number)
                if dice.random() < 0.5:
                    await trio.sleep(dice.random() * 0.001)
        assert all(heard[number] == said[number] for number in set(range(50)) - closed)
        assert not ready._readers
        assert not ready._newcomers
        assert not ready._in_queue
