"""When an issuer's keys are read again, and how long somebody with an unknown key waits for that; by a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from kafka_chat.access.claims import ClaimRules
from kafka_chat.access.issuer import Issuer
from kafka_chat.access.keys import KeySet, read_secret
from kafka_chat.issuers.fetch import FETCH_SECONDS, FetchFailed
from kafka_chat.issuers.key_source import (
    FAILED_SECONDS,
    FETCH_AGAIN_SECONDS,
    JITTER,
    QUIET_SECONDS,
    READ_AGAIN_SECONDS,
    UNKNOWN_SECONDS,
    WITHOUT_KEYS_SECONDS,
    KeySource,
)
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.issuer import AUDIENCE, ISS, SECRET

KEYS = read_secret(SECRET.encode())


class Reads:
    """What is read, and when; it may fail, or take its time.

    Attributes:
        at: the seconds at which each read began.
        fails: whether each fails.
        hangs: whether each takes as long as a fetch may take, and fails then.
    """

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.at: list[float] = []
        self.fails = fails
        self.hangs = hangs

    async def __call__(self) -> KeySet:
        """Read once."""
        self.at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep(FETCH_SECONDS)
        if self.fails or self.hangs:
            raise FetchFailed("nobody is there")
        return KEYS

    @property
    def pauses(self) -> list[float]:
        """Return the seconds between two reads."""
        return [later - earlier for earlier, later in pairwise(self.at)]


def source_of(reads: Reads, *, asked: bool = True, again_seconds: float = FETCH_AGAIN_SECONDS) -> KeySource:
    issuer = Issuer("main", ClaimRules(issuer=ISS, audience=AUDIENCE, users=()), ["HS256"])
    return KeySource(issuer, reads, again_seconds=again_seconds, asked=asked, telemetry=Telemetry())


async def run_for(source: KeySource, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await source.run()


@pytest.mark.parametrize("again_seconds", [FETCH_AGAIN_SECONDS, READ_AGAIN_SECONDS])
@pytest.mark.promise("p-access-keys-refreshed", "p-access-key-files")
async def test_good_keys_are_read_again_after_a_while_that_is_never_the_same(autojump_clock: MockClock, again_seconds: float):
    reads = Reads()
    await run_for(source_of(reads, again_seconds=again_seconds), 40 * again_seconds)
    assert all(again_seconds * (1 - JITTER) <= pause <= again_seconds * (1 + JITTER) for pause in reads.pauses)
    assert len(set(reads.pauses)) == len(reads.pauses) > 30


async def test_without_keys_they_are_asked_for_every_other_second(autojump_clock: MockClock):
    reads = Reads(fails=True)
    source = source_of(reads)
    await run_for(source, 100)
    assert all(pause <= WITHOUT_KEYS_SECONDS * (1 + JITTER) for pause in reads.pauses)
    assert source.problem == "nobody is there"


async def test_after_a_failure_the_last_good_keys_stay_and_the_next_try_is_sooner(autojump_clock: MockClock):
    reads = Reads()
    source = source_of(reads)
    await source.read_once()
    reads.fails = True
    await run_for(source, 1000)
    assert source._issuer.keys is KEYS
    assert source.problem is None
    assert all(pause <= FAILED_SECONDS * (1 + JITTER) for pause in reads.pauses[1:])


@pytest.mark.promise("p-access-unknown-kid")
async def test_a_thousand_unknown_keys_wait_for_the_one_fetch_under_way_and_two_seconds_at_most(autojump_clock: MockClock):
    reads = Reads()
    source = source_of(reads)
    waited: list[float] = []

    async def ask() -> None:
        began = trio.current_time()
        await source.look_for_newer()
        waited.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(QUIET_SECONDS + 1)
        reads.hangs = True
        async with trio.open_nursery() as asking:
            for number in range(1000):
                asking.start_soon(ask)
                if number == 500:
                    await trio.sleep(1)
        assert len(reads.at) == 2
        assert max(waited) == pytest.approx(UNKNOWN_SECONDS)
        assert min(waited) == pytest.approx(UNKNOWN_SECONDS)
        await trio.sleep(FETCH_SECONDS)  # the fetch has failed by now
        waited.clear()
        for _ in range(1000):
            await ask()
        assert set(waited) == {0.0}
        assert len(reads.at) == 2
        nursery.cancel_scope.cancel()


async def test_who_waits_goes_on_as_soon_as_the_keys_are_there(autojump_clock: MockClock):
    reads = Reads()
    source = source_of(reads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(QUIET_SECONDS + 1)
        began = trio.current_time()
        await source.look_for_newer()
        assert (len(reads.at), trio.current_time() - began) == (2, 0.0)
        nursery.cancel_scope.cancel()


@pytest.mark.promise("p-access-unknown-kid")
async def test_unknown_keys_cause_at_most_one_fetch_in_half_a_minute(autojump_clock: MockClock):
    reads = Reads()
    source = source_of(reads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        for _ in range(10 * 60):
            await trio.sleep(1)
            await source.look_for_newer()
        assert min(reads.pauses) >= QUIET_SECONDS
        assert len(reads.at) <= 10 * 60 / QUIET_SECONDS + 1
        nursery.cancel_scope.cancel()


async def test_an_unknown_key_is_no_reason_to_look_at_a_file(autojump_clock: MockClock):
    reads = Reads()
    source = source_of(reads, asked=False, again_seconds=READ_AGAIN_SECONDS)
    await source.read_once()
    await trio.sleep(QUIET_SECONDS + 1)
    await source.look_for_newer()
    assert len(reads.at) == 1


async def test_who_asks_and_leaves_keeps_no_other_waiting(autojump_clock: MockClock):
    reads = Reads()
    source = source_of(reads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.sleep(QUIET_SECONDS + 1)
        reads.hangs = True
        with trio.move_on_after(0.5):
            await source.look_for_newer()
        await trio.sleep(FETCH_SECONDS + QUIET_SECONDS + 1)
        reads.hangs = False
        await source.look_for_newer()
        assert len(reads.at) == 3
        nursery.cancel_scope.cancel()
