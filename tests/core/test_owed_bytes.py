"""What is written arrives whole and in order, whatever the client takes, and whichever task is cancelled meanwhile."""

from __future__ import annotations

import gc
import os
import random
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.web.server.owed_bytes import PIECES, OwedBytes
from kafka_chat.web.server.ready_sockets import ReadySockets
from tests.support.deadlines import HANG_SECONDS

WRITE_SECONDS = 30.0
MUCH = b"m" * 4_000_000  # more than a socket takes


class Connection:
    """An owner that records its calls."""

    def __init__(self) -> None:
        self.lost_times = 0
        self.aborted: list[str | None] = []

    def lost(self) -> None:
        self.lost_times += 1

    def abort(self, reason: str | None = None) -> None:
        self.aborted.append(reason)


@dataclass
class Writer:
    """A sink, as what is owed sees it."""

    direct: bool = False


@dataclass
class Pair:
    """Both ends of a connection, and what is written to ours."""

    ours: trio.socket.SocketType
    theirs: socket.socket
    owner: Connection
    output: OwedBytes
    decided: bytearray = field(default_factory=bytearray)
    arrived: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> bool:
        self.decided += data
        return self.output.write(data)

    def take(self, most: int = 1 << 24) -> bytes:
        """Read what has come, up to `most` bytes."""
        taken = bytearray()
        while len(taken) < most:
            try:
                data = self.theirs.recv(most - len(taken))
            except BlockingIOError:
                break
            if not data:
                break
            taken += data
        self.arrived += taken
        return bytes(taken)

    async def take_all(self) -> None:
        """Read until nothing is owed, and what was decided is there."""
        with trio.fail_after(HANG_SECONDS):
            while self.output.owed or len(self.arrived) < len(self.decided):
                if not self.take():
                    await trio.lowlevel.checkpoint()


@contextmanager
def made(encrypt: Callable[[bytes], Awaitable[None]] | None = None) -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    with theirs, trio.socket.from_stdlib_socket(ours) as wrapped:
        owner = Connection()
        output = OwedBytes(wrapped, ReadySockets(), owner, write_seconds=WRITE_SECONDS, encrypt=encrypt)
        pair = Pair(wrapped, theirs, owner, output)
        del owner  # the test alone holds it
        yield pair


async def test_what_fits_goes_at_once_and_nothing_is_owed():
    with made() as pair:
        assert pair.write(b"one")
        assert pair.write(memoryview(b"two"))
        assert pair.output.owed == 0
        assert pair.take() == b"onetwo"


async def test_what_does_not_fit_is_owed_to_the_byte_and_goes_before_all_that_comes_later(nursery: trio.Nursery):
    with made() as pair:
        assert not pair.write(MUCH)
        assert not pair.write(b"later")
        owed = pair.output.owed
        assert len(pair.take()) == len(pair.decided) - owed
        nursery.start_soon(pair.output.drain)
        await pair.take_all()
        assert pair.arrived == pair.decided


async def test_what_a_full_socket_does_not_take_is_owed_whole():
    with made() as pair:
        while sent := send_some(pair.ours, MUCH):
            pair.decided += MUCH[:sent]
        assert not pair.write(b"all of this")
        assert pair.output.owed == len(b"all of this")


async def test_a_write_takes_along_what_was_owed_where_there_is_room_again():
    with made() as pair:
        pair.write(MUCH[:300_000])
        assert pair.output.owed
        pair.take()
        assert pair.write(b"the last")
        assert pair.output.owed == 0
        pair.take()
        assert pair.arrived == pair.decided


@pytest.mark.parametrize("owed", [False, True])
async def test_a_write_to_a_client_that_is_gone_says_so(*, owed: bool):
    with made() as pair:
        writer = Writer()
        pair.output.start_taking(writer)
        if owed:
            pair.write(MUCH)
        pair.theirs.close()
        assert not pair.write(b"to nobody")
        assert (pair.owner.lost_times, pair.output.owed, pair.output.taking, writer.direct) == (1, 0, False, False)


@pytest.mark.parametrize("end", ["finish", "close"])
async def test_the_end_takes_no_more_offers(end: str):
    with made() as pair:
        writer = Writer()
        pair.output.start_taking(writer)
        getattr(pair.output, end)()
        assert (pair.output.taking, writer.direct, pair.output.offer(b"late")) == (False, False, False)


async def test_an_offer_is_taken_from_the_start_to_the_stop_and_never_behind_the_end():
    with made() as pair:
        assert not pair.output.offer(b"early")
        writer = Writer()
        pair.output.start_taking(writer)
        assert writer.direct
        assert pair.output.offer(b"taken")
        pair.output.stop_taking()
        assert not writer.direct
        assert not pair.output.offer(b"late")
        assert pair.output.write(b" the end")
        pair.output.finish()
        pair.output.start_taking(writer)
        assert not writer.direct
        assert not pair.output.offer(b"behind it")
        assert pair.take() == b"taken the end"


async def test_a_writer_writes_to_the_socket_itself_only_while_nothing_is_owed(nursery: trio.Nursery):
    with made() as pair:
        writer = Writer()
        pair.output.start_taking(writer)
        assert not pair.write(MUCH)
        assert not writer.direct
        nursery.start_soon(pair.output.drain)
        await pair.take_all()
        assert writer.direct
        pair.output.owe(b"what the socket did not take of it")
        assert not writer.direct


async def test_a_writer_that_begins_while_something_is_owed_waits_for_it(nursery: trio.Nursery):
    with made() as pair:
        writer = Writer()
        pair.write(MUCH)
        pair.output.start_taking(writer)
        assert not writer.direct
        nursery.start_soon(pair.output.drain)
        await pair.take_all()
        assert writer.direct


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_is_cancelled_at_any_moment_the_stream_is_what_was_decided(seed: int):
    dice = random.Random(seed)
    with made() as pair:
        writer = Writer()
        pair.output.start_taking(writer)

        async def drain(scope: trio.CancelScope) -> None:
            with scope:
                await pair.output.drain()

        async with trio.open_nursery() as nursery:
            scopes: list[trio.CancelScope] = []
            for _ in range(300):
                match dice.randrange(5):
                    case 0 | 1:
                        owed = pair.output.owed
                        data = dice.randbytes(dice.choice((1, 100, 5_000, 300_000)))
                        # As a sink does: to the socket itself while it may, else behind what is owed.
                        if writer.direct:
                            assert owed == 0
                            pair.decided += data
                            sent = send_some(pair.ours, data)
                            if sent < len(data):
                                pair.output.owe(memoryview(data)[sent:])
                        else:
                            pair.write(data)
                    case 2:
                        scopes.append(trio.CancelScope())
                        nursery.start_soon(drain, scopes[-1])
                    case 3 if scopes:
                        scopes.pop(dice.randrange(len(scopes))).cancel()
                    case _:
                        pair.take(dice.choice((1, 10_000, 1_000_000)))
                if dice.random() < 0.3:
                    await trio.lowlevel.checkpoint()
                assert writer.direct == (pair.output.owed == 0)
            nursery.start_soon(pair.output.drain)
            await pair.take_all()
        assert pair.arrived == pair.decided
        assert pair.owner.lost_times == 0


def send_some(ours: trio.socket.SocketType, data: bytes) -> int:
    try:
        return os.write(ours.fileno(), data)
    except BlockingIOError:
        return 0


async def test_more_pieces_than_one_system_call_writes_arrive_in_order(nursery: trio.Nursery):
    with made() as pair:
        pair.write(MUCH)
        for number in range(3 * PIECES):
            pair.write(b"%d," % number)
        nursery.start_soon(pair.output.drain)
        await pair.take_all()
        assert pair.arrived == pair.decided


async def test_who_waits_does_not_wait_for_what_others_add_meanwhile(nursery: trio.Nursery):
    with made() as pair:
        pair.write(MUCH)
        drained = trio.Event()

        async def drain() -> None:
            await pair.output.drain()
            drained.set()

        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        assert pair.output.draining
        with trio.fail_after(HANG_SECONDS):
            while not drained.is_set():
                pair.take()
                await wait_all_tasks_blocked()
                pair.write(MUCH[:1_000_000])
        assert pair.output.owed
        assert not pair.output.draining


async def test_half_closed_is_what_is_finished_once_all_of_it_is_taken(nursery: trio.Nursery):
    with made() as pair:
        pair.write(MUCH)
        pair.output.finish()
        pair.take(1)
        nursery.start_soon(pair.output.drain)
        await pair.take_all()
        await wait_all_tasks_blocked()
        assert pair.arrived == pair.decided
        assert pair.theirs.recv(1) == b""
        pair.theirs.send(b"it still listens")
        assert await pair.ours.recv(100) == b"it still listens"


async def test_what_is_finished_while_nothing_is_owed_is_half_closed_at_once():
    with made() as pair:
        pair.write(b"all")
        pair.output.finish()
        assert pair.take() == b"all"
        assert pair.theirs.recv(1) == b""


async def test_a_client_that_is_gone_is_told_once_and_nothing_is_owed_to_it():
    with made() as pair:
        writer = Writer()
        pair.output.start_taking(writer)
        pair.write(MUCH)
        pair.theirs.close()
        with trio.fail_after(HANG_SECONDS):
            await pair.output.drain()
        assert (pair.owner.lost_times, pair.output.owed, pair.output.taking, writer.direct) == (1, 0, False, False)
        assert not pair.output.offer(b"to nobody")


async def test_a_socket_that_is_closed_frees_who_waits_and_gets_nothing_more():
    with made() as pair:
        pair.write(MUCH)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.output.drain)
            await wait_all_tasks_blocked()
            pair.output.close()
            pair.ours.close()
        writer = Writer()
        pair.output.start_taking(writer)
        first, other = socket.socketpair()  # which have its descriptor now, or may have
        with first, other:
            assert not pair.output.write(b"for somebody else")
            pair.output.take_encrypted(b"for somebody else")
            other.settimeout(0)
            with pytest.raises(BlockingIOError):
                other.recv(1)
        assert (pair.output.owed, pair.output.taking, writer.direct, pair.owner.lost_times) == (0, False, False, 0)


async def test_a_client_takes_nothing_once_it_has_taken_nothing_for_so_long(mock_clock: MockClock):
    with made() as pair:
        mock_clock.jump(100)
        assert not pair.output.takes_nothing(trio.current_time())  # nothing is owed
        pair.write(MUCH)
        begun = trio.current_time()
        assert not pair.output.takes_nothing(begun + WRITE_SECONDS - 1)
        assert pair.output.takes_nothing(begun + WRITE_SECONDS)
        mock_clock.jump(20)
        pair.write(b"more")  # is no sign of life
        assert pair.output.takes_nothing(begun + WRITE_SECONDS)
        assert pair.output.room_at == 0
        pair.take(500_000)
        with trio.move_on_after(0):
            await pair.output.drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.output.drain)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert pair.output.owed
        assert pair.output.room_at == trio.current_time()
        assert not pair.output.takes_nothing(begun + WRITE_SECONDS)
        assert pair.output.takes_nothing(begun + 20 + WRITE_SECONDS)


async def test_seconds_in_which_the_process_stood_still_are_not_the_clients(mock_clock: MockClock):
    with made() as pair:
        pair.write(MUCH)
        mock_clock.jump(WRITE_SECONDS + 5)
        assert pair.output.takes_nothing(trio.current_time())
        pair.output.stood_still(WRITE_SECONDS)
        assert not pair.output.takes_nothing(trio.current_time())
        pair.output.stood_still(1_000)  # never ahead of the clock
        assert pair.output.takes_nothing(trio.current_time() + WRITE_SECONDS)


async def test_a_sign_of_life_is_as_old_after_the_process_stood_still_as_before(mock_clock: MockClock):
    with made() as pair:
        mock_clock.jump(1_000)
        pair.write(MUCH)
        pair.take(500_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.output.drain)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        mock_clock.jump(3)
        age = trio.current_time() - pair.output.room_at
        mock_clock.jump(500)
        pair.output.stood_still(500)
        assert trio.current_time() - pair.output.room_at == age == 3
        pair.output.stood_still(500)
        assert pair.output.room_at == trio.current_time()


async def test_an_owner_is_freed_with_its_bytes_without_a_search_for_cycles():
    gc.disable()
    try:
        with made() as pair:
            writer = Writer()
            pair.output.start_taking(writer)
            owner = weakref.ref(pair.owner)
            pair.output.untie()
            pair.owner = None  # type: ignore[assignment]
            assert owner() is None
            assert pair.output.write(b"still") is True
    finally:
        gc.enable()


# TLS


@contextmanager
def encrypting(pause: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint) -> Iterator[Pair]:
    """What is written goes through something that turns `a` into `A`, and may pause in the middle of it."""

    async def encrypt(data: bytes) -> None:
        for begin in range(0, len(data), 100_000):
            await pause()
            pair.output.take_encrypted(data[begin : begin + 100_000].upper())

    with made(encrypt) as pair:
        yield pair


async def test_under_tls_nothing_goes_without_its_keys_and_writers_never_write_themselves():
    with encrypting() as pair:
        writer = Writer()
        pair.output.start_taking(writer)
        assert not pair.output.offer(b"abc")
        assert not writer.direct
        assert pair.output.owed == 3
        assert pair.take() == b""
        await pair.output.drain()
        assert pair.output.owed == 0
        assert pair.take() == b"ABC"
        assert not writer.direct


async def test_what_tls_has_to_say_by_itself_goes_at_once():
    with encrypting() as pair:
        pair.output.take_encrypted(b"its handshake")
        assert pair.output.owed == 0
        assert pair.take() == b"its handshake"


async def test_under_tls_a_cancelled_drain_tears_nothing():
    with encrypting() as pair:
        for word in (b"a" * 250_000, b"b" * 250_000):
            pair.write(word)
            with trio.move_on_after(0):
                await pair.output.drain()
        pair.output.finish()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.output.drain)
            await pair.take_all()
        assert pair.arrived == pair.decided.upper()
        assert pair.theirs.recv(1) == b""


async def test_an_encryption_that_hangs_ends_its_connection(autojump_clock: MockClock):
    with encrypting(trio.sleep_forever) as pair:
        pair.write(b"a")
        await pair.output.drain()
        assert pair.owner.aborted == ["write_seconds"]


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_an_encryption_that_fails_says_that_the_client_is_gone(error: type[Exception]):
    async def fail() -> None:
        raise error

    with encrypting(fail) as pair:
        pair.write(b"a")
        await pair.output.drain()
        assert (pair.owner.lost_times, pair.output.owed) == (1, 0)
