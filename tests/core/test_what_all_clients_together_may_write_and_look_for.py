"""All clients together make this service keep so many subscriptions a second, and look for so many chats that do not exist."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.audience.named_chats import WAITING, NamedChats
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.writes.record_rate import BURST_SECONDS, RecordRate
from kafka_chat.errors import Overloaded
from tests.support.fake_topics import NAMES
from tests.support.fakes import FakeClient, open_core

RATE = 100


@pytest.mark.promise("p-subscriptions-bounded")
async def test_records_are_written_at_the_rate_whatever_the_calls(autojump_clock) -> None:
    dice, rate, taken, refused = random.Random(3), RecordRate(RATE), 0, 0
    began = trio.current_time()
    for _ in range(5_000):
        size = dice.choice([1, 3, 100])
        try:
            rate.take(size)
            taken += size
        except Overloaded:
            refused += 1
        await trio.sleep(dice.random() * 0.05)
    seconds = trio.current_time() - began
    assert refused
    assert taken <= RATE * (seconds + BURST_SECONDS) + 100
    assert taken >= RATE * seconds - 100, "what may be written is written"


async def test_one_that_came_back_when_it_was_told_to_may_write(autojump_clock) -> None:
    rate = RecordRate(RATE)
    rate.take(int(RATE * BURST_SECONDS) + 250)
    with pytest.raises(Overloaded) as refused:
        rate.take(1)
    await trio.sleep(int(refused.value.headers["Retry-After"]) + 0.001)
    rate.take(1)


async def test_topics_that_are_not_there_are_counted_for_as_long_as_somebody_names_them(autojump_clock) -> None:
    async with open_core() as core:
        core.kafka.create(NAMES.topic("there"))
        core.kafka.create(NAMES.topic("deleted"))
        core.chats["ben"] = {"subscribed", "both"}
        named = SessionOptions(chats=("there", "absent", "both", "deleted"))
        assert core.audience.named_absent(["there", "absent"]) == 2, "nobody knows yet"
        async with core.connected(FakeClient(), "ben"), core.connected(FakeClient(), options=named):
            await wait_all_tasks_blocked()
            assert core.audience.named_absent([]) == 2
            assert core.audience.named_absent(["there", "absent", "subscribed", "new", "new"]) == 4
            async with core.connected(FakeClient(), options=SessionOptions(chats=("absent", "other"))):
                await wait_all_tasks_blocked()
                assert core.audience.named_absent([]) == 3
            assert core.audience.named_absent([]) == 2
            core.kafka.create(NAMES.topic("absent"))
            core.kafka.delete(NAMES.topic("deleted"))
            assert core.audience.named_absent([]) == 2
        assert core.audience.named_absent([]) == 0


async def test_what_nobody_follows_is_asked_for_where_that_decides_and_only_then(autojump_clock) -> None:
    async with open_core() as core:
        for chat in ("there", "yonder"):
            core.kafka.create(NAMES.topic(chat))
        named = NamedChats(core.audience, core.kafka, NAMES, 3)
        assert await named.existing("ann", ["there", "yonder"]) == (), "two may be absent"
        named.check("ann", ["there", "yonder"], ())
        async with core.connected(FakeClient(), options=SessionOptions(chats=("absent", "other", "third"))):
            await wait_all_tasks_blocked()
            with pytest.raises(Overloaded, match=r"limits\.absent_chats"):
                named.check("ann", ["there"], ())
            existing = await named.existing("ann", ["there", "yonder", "absent", "new"])
            assert existing == {"there", "yonder"}
            named.check("ann", ["there", "yonder", "absent"], existing)
            with pytest.raises(Overloaded, match=r"limits\.absent_chats"):
                named.check("ann", ["there", "new"], existing)
            named.check("ann", [], ())


async def test_few_wait_to_be_told_and_without_brokers_what_nobody_follows_is_absent(autojump_clock) -> None:
    async with open_core() as core:
        core.kafka.create(NAMES.topic("there"))
        named = NamedChats(core.audience, core.kafka, NAMES, 1)
        async with core.connected(FakeClient(), options=SessionOptions(chats=("absent",))):
            await wait_all_tasks_blocked()
            core.kafka.away = True
            found: list[Collection[str]] = []

            async def ask() -> None:
                found.append(await named.existing("ann", ["there"]))

            async with trio.open_nursery() as nursery:
                for _ in range(10 * WAITING):
                    nursery.start_soon(ask)
            assert found == [()] * 10 * WAITING
            core.kafka.away = False
            async with trio.open_nursery() as nursery:
                for _ in range(10 * WAITING):
                    nursery.start_soon(ask)
            assert 1 <= found[10 * WAITING :].count({"there"}) <= WAITING + 1


async def test_one_user_leaves_absent_chats_to_others_however_many_connections_it_has(autojump_clock) -> None:
    async with open_core() as core, AsyncExitStack() as connections:
        named = NamedChats(core.audience, core.kafka, NAMES, 50)
        releases: dict[str, list[Callable[[], None]]] = {}

        async def connect(username: str, *chats: str) -> bool:
            try:
                absent = named.check(username, chats, await named.existing(username, chats))
            except Overloaded:
                return False
            releases.setdefault(username, []).append(named.hold(username, absent))
            await connections.enter_async_context(core.connected(FakeClient(), username, options=SessionOptions(chats=chats)))
            await wait_all_tasks_blocked()
            return True

        assert not await connect("mallory", *(f"m{number}" for number in range(26)))
        for number in range(25):
            assert await connect("mallory", f"m{number}")
            assert await connect("mallory", f"m{number}"), "which is the same chat"
        assert not await connect("mallory", "one more")
        for user, fits in (("ann", 13), ("ben", 6), ("cleo", 3), ("dora", 2), ("ed", 1)):
            assert not await connect(user, *(f"{user}{number}" for number in range(fits + 1)))
            assert await connect(user, *(f"{user}{number}" for number in range(fits)))
        core.kafka.create(NAMES.topic("m7"))
        await connections.aclose()
        for release in [release for of_one in releases.values() for release in of_one]:
            release()
        assert await connect("mallory", *(f"m{number}" for number in range(25)))


async def test_chats_that_exist_by_now_do_not_count_for_the_user_that_named_them(autojump_clock) -> None:
    async with open_core() as core:
        named = NamedChats(core.audience, core.kafka, NAMES, 4)
        chats = ("a", "b")
        named.hold("ann", named.check("ann", chats, ()))
        async with core.connected(FakeClient(), "ann", options=SessionOptions(chats=chats)):
            await wait_all_tasks_blocked()
            with pytest.raises(Overloaded, match="half of what others leave"):
                named.check("ann", ["c"], ())
            core.kafka.create(NAMES.topic("a"))
            await trio.sleep(10)
            named.check("ann", ["c"], ())
