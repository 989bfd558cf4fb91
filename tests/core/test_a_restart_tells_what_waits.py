"""Before a client is told to reconnect, it gets every notice that its cursor is past."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.delivery.session.resumable_session import ResumableSession
from kafka_chat.delivery.session.session import Session
from kafka_chat.service import RESTART
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core
from tests.support.loop_steps import loop_steps

GLOBAL, ROOM = "kafka.chat.global", "kafka.chat.room"
PARTITIONS = 2
SEEDS = 150
EVERYTHING = float("inf")


def v1(cursor: str = "", **options: Any) -> SessionOptions:
    return SessionOptions(format=Format.V1, cursor=parse(cursor) if cursor else None, **options)


def metas(client: FakeClient) -> list[dict[str, Any]]:
    return [frame["meta"] for frame in client.deliveries]  # type: ignore[misc]


def kinds(client: FakeClient) -> list[str]:
    return [str(frame.get("text") or frame["meta"].get("type")) for frame in client.deliveries]  # type: ignore[attr-defined]


def cursor_of(client: FakeClient, cursor: str = "") -> str:
    """Return what a client makes of what it has had, as docs/protocol.md says."""
    ids: dict[int, str] = {}
    for meta in metas(client):
        if meta.get("cursor"):
            cursor, ids = meta["cursor"], {}
        elif "id" in meta:
            ids[meta["partition"]] = meta["id"]
    return ".".join([*([cursor] if cursor else []), *ids.values()])


async def restart(session: Session, client: FakeClient) -> None:
    session.end(RESTART)
    await wait_all_tasks_blocked()
    client.make_room(EVERYTHING)
    await wait_all_tasks_blocked()
    assert client.closed == (1012, RESTART.reason)


def lose(core: Core, partition: int, offsets: int) -> None:
    """Have as many records go as retention takes before the Tail has read them."""
    log = core.kafka.topics[GLOBAL].partitions[partition]
    asked, log.end = log.end, log.end + offsets
    log.low = log.end
    core.audience.followed.position_lost(core.kafka.key(GLOBAL, partition), asked, log.end, LossCause.RETENTION)


async def test_a_gap_that_waits_behind_what_a_slow_client_is_owed(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=v1()) as session:
            await wait_all_tasks_blocked()
            client.make_room(0)
            core.kafka.produce(GLOBAL, value("m0"), value("m1"))
            await wait_all_tasks_blocked()
            lose(core, 0, 48)
            await wait_all_tasks_blocked()
            await restart(session, client)
        core.kafka.produce(GLOBAL, value("m50"))
        async with core.connected(again := FakeClient(), options=v1(cursor_of(client))):
            await wait_all_tasks_blocked()
    assert kinds(client) == ["hello", "live", "m0", "m1", "gap", "reconnect"]
    assert [(meta["first_lost"], meta["first_left"]) for meta in metas(client) if meta.get("type") == "gap"] == [(2, 50)]
    assert kinds(again) == ["hello", "m50", "live"]
    assert metas(again)[0]["resume"] == "exact"


@pytest.mark.promise("p-reconnect")
async def test_all_that_waits_is_told_in_its_order(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.chats["ann"] = {"global", "left"}
        async with core.connected(client := FakeClient(), options=v1(heartbeat_seconds=10.0)) as session:
            await wait_all_tasks_blocked()
            client.make_room(0)
            core.kafka.produce(GLOBAL, value("owed"))
            await wait_all_tasks_blocked()
            client.say(json.dumps({"op": "ping", "re": 1}))
            await wait_all_tasks_blocked()
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="left", subscribed=False, starts={}))
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=True, starts={0: 3}))
            lose(core, 0, 4)
            await trio.sleep(15)  # a heartbeat waits, too
            await restart(session, client)
    assert kinds(client) == ["hello", "live", "owed", "pong", "unsubscribed", "subscribed", "gap", "heartbeat", "reconnect"]


async def test_news_that_an_op_holds_back_is_told_where_the_restart_is_quicker_than_the_op(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=v1()) as session:
            await wait_all_tasks_blocked()
            assert isinstance(session, ResumableSession)
            session._notices.begin_op(["room"])
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=True, starts={0: 3}))
            await wait_all_tasks_blocked()
            assert kinds(client) == ["hello", "live"]
            await restart(session, client)
    assert kinds(client) == ["hello", "live", "subscribed", "reconnect"]


async def test_hello_that_is_not_written_yet_is_told(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m0"))
        session, client = core.requested(v1()), FakeClient(room=0)
        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, client, client)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                await restart(session, client)
    assert kinds(client)[0] == "hello"
    assert kinds(client)[-1] == "reconnect"


@pytest.mark.parametrize("asked", [{"rewind": 2}, {"cursor": "beyond"}, {}])
@pytest.mark.promise("p-hello")
async def test_a_client_whose_beginning_is_not_known_gets_no_cursor(autojump_clock: MockClock, asked: dict[str, Any]) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m0"), value("m1"), value("m2"))
        if "cursor" in asked:
            async with core.connected(before := FakeClient(), options=v1()):
                await wait_all_tasks_blocked()
            core.kafka.topics[GLOBAL].partitions[0].end = 1  # a broker lost its end
            asked = {"cursor": cursor_of(before)}
        core.kafka.page_gate = trio.Event()
        session, client = core.requested(v1(**asked)), FakeClient()
        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                if not asked:
                    session.end(RESTART)  # before its nursery is there
                nursery.start_soon(session.run, client, client)
                await wait_all_tasks_blocked()
                await restart(session, client)
    assert kinds(client)[-1] == "reconnect"
    assert [meta["cursor"] for meta in metas(client)] == [None] * len(kinds(client))


async def test_a_gap_whose_walk_has_not_come_to_the_client_is_not_behind_its_cursor(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=v1()) as session:
            await wait_all_tasks_blocked()
            core.kafka.produce(GLOBAL, value("m0"))
            await wait_all_tasks_blocked()
            lose(core, 0, 5)
            session.end(RESTART)  # no checkpoint since
            await wait_all_tasks_blocked()
        async with core.connected(again := FakeClient(), options=v1(cursor_of(client))):
            await wait_all_tasks_blocked()
    told = [(meta["first_lost"], meta["first_left"]) for seen in (client, again) for meta in metas(seen) if meta.get("type") == "gap"]
    assert told == [(1, 6)]


async def test_a_bare_client_is_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=SessionOptions(rewind=3)) as session:
            await wait_all_tasks_blocked()
            lose(core, 0, 5)
            await restart(session, client)
    assert client.got == b""


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.promise("p-reconnect")
async def test_whenever_the_restart_comes_each_offset_is_delivered_once_or_told_lost(autojump_clock: MockClock, seed: int) -> None:
    dice = Random(seed)
    seen: list[FakeClient] = []
    async with open_core() as core:
        core.kafka.create(GLOBAL, PARTITIONS)
        cursor = ""
        for _ in range(3):
            client = FakeClient()
            seen.append(client)
            async with core.connected(client, options=v1(cursor)) as session:
                if cursor == "":
                    await wait_all_tasks_blocked()
                for _ in range(dice.randrange(12)):
                    partition = dice.randrange(PARTITIONS)
                    match dice.randrange(4):
                        case 0 | 1:
                            core.kafka.produce(GLOBAL, *[value("m" * dice.randrange(300))] * dice.randrange(1, 4), partition=partition)
                        case 2:
                            lose(core, partition, dice.randrange(1, 5))
                        case _:
                            client.make_room(dice.choice((0, 50, 700)))
                    if dice.random() < 0.6:
                        await wait_all_tasks_blocked()
                await restart(session, client)
            cursor = cursor_of(client, cursor)
        async with core.connected(last := FakeClient(), options=v1(cursor)):
            await wait_all_tasks_blocked()
        seen.append(last)
        had: list[list[int]] = [[] for _ in range(PARTITIONS)]
        lost: list[set[int]] = [set() for _ in range(PARTITIONS)]  # told again where the restart came before the walk that tells the next
        for meta in (meta for client in seen for meta in metas(client)):
            if meta.get("type") == "gap":
                lost[meta["partition"]].update(range(meta["first_lost"], meta["first_left"]))
            elif "id" in meta:
                had[meta["partition"]].append(meta["offset"])
        for partition, log in core.kafka.topics[GLOBAL].partitions.items():
            assert had[partition] == sorted({*range(log.end)} - lost[partition])


async def test_who_has_had_no_hello_is_told_of_nothing_but_to_come_again(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        session, client = core.requested(v1()), FakeClient()
        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            session.on_gap(core.kafka.key(GLOBAL), 0, 5, LossCause.RETENTION)
            session.end(RESTART)
            await session.run(client, client)
    assert kinds(client) == ["reconnect"]
    assert metas(client)[0]["cursor"] is None


async def test_however_much_waits_the_others_go_on_meanwhile(autojump_clock: MockClock) -> None:
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        async with core.connected(client := FakeClient(), options=v1()) as session:
            await wait_all_tasks_blocked()
            topic_id = core.kafka.topics[GLOBAL].topic_id
            for partition in range(8000):
                session.on_gap(PartitionKey(GLOBAL, topic_id, partition), 0, 5, LossCause.RETENTION)
            session.end(RESTART)
            with loop_steps() as steps:
                await wait_all_tasks_blocked()
            steps.check()
    assert kinds(client).count("gap") == 8000
