"""What a session delivers, in whatever order events come."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.session.live_socket import Close
from tests.support.fake_topics import value
from tests.support.fakes import FakeClient, open_core

GLOBAL = "kafka.chat.global"


@pytest.mark.promise("p-frames")
async def test_a_message_is_delivered_with_exactly_four_fields_in_their_order(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client) as session:
            core.kafka.produce(GLOBAL, value("hello", sender="bo", tag="t"), value("again"))
            await wait_all_tasks_blocked()
            assert session.fell_behind == 0
        assert client.got[2:].startswith(b'{"sender":"bo","text":"hello","tag":"t","chat":"global"}')
        assert client.deliveries[1] == {"sender": "ann", "text": "again", "tag": None, "chat": "global"}


async def test_what_was_produced_before_the_connect_is_not_delivered(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("old"))
        client = FakeClient()
        async with core.connected(client):
            core.kafka.produce(GLOBAL, value("new"))
            await wait_all_tasks_blocked()
        assert client.texts == ["new"]


async def test_a_client_that_takes_bytes_in_pieces_gets_everything_once(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient(room=0)
        async with core.connected(client):
            for n in range(300):
                core.kafka.produce(GLOBAL, value(f"m{n}"))
                client.make_room(n % 97)
                await wait_all_tasks_blocked()
            client.make_room(float("inf"))
            await wait_all_tasks_blocked()
        assert client.texts == [f"m{n}" for n in range(300)]


async def test_a_client_that_fell_behind_the_memory_reads_pages_and_catches_up(autojump_clock):
    async with open_core(memory_bytes=65_536) as core:
        core.kafka.create(GLOBAL)
        slow, fast = FakeClient(room=10), FakeClient()
        async with core.connected(slow, "slow") as session, core.connected(fast, "fast") as ahead:
            for n in range(5000):
                core.kafka.produce(GLOBAL, value(f"m{n}"), hole=n % 3)
                if not n % 100:
                    await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            assert core.memory.held_bytes <= 65_536
            slow.make_room(float("inf"))
            await wait_all_tasks_blocked()
            assert session.follower.parked
        assert slow.texts == fast.texts == [f"m{n}" for n in range(5000)]
        assert session.fell_behind
        assert core.memory.owed_bytes == 0
        # What is read from pages counts as what is written as it comes.
        assert session.messages == ahead.messages == 5000
        assert session.bytes_sent == len(slow.got) == len(fast.got)
        told = dict(line.rsplit(" ", 1) for line in core.telemetry.metrics().decode().splitlines() if not line.startswith("#"))
        assert float(told["kafka_chat_messages_delivered_total"]) == 10_000
        assert float(told["kafka_chat_delivered_bytes_total"]) == 2 * len(slow.got)


async def test_clients_near_the_same_place_share_the_pages(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(2000)])
        clients = [FakeClient() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for n, client in enumerate(clients):
                session = core.session(f"u{n}")
                nursery.start_soon(_run_from, core, session, client, 700 + n)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        for n, client in enumerate(clients):
            assert client.texts == [f"m{m}" for m in range(700 + n, 2000)]
        assert len(core.kafka.page_reads) == 3  # 512-1023, 1024-1535, 1536-1999


async def _run_from(core, session, client, offset):
    with core.audience.joined(session, known=True):
        await core.audience.wait_started(session, seconds=2)
        log = next(iter(session.follower.cursors.values())).log
        session.follower.unfollow(log)
        session.follower.follow(log, offset, afresh=True)
        await session.run(client, client)


async def test_large_records_are_read_from_where_they_are_asked_for(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        big = "x" * 100_000
        for n in range(300):
            core.kafka.produce(GLOBAL, value(f"{n} {big}"), tail=False)
        client = FakeClient()
        session = core.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_from, core, session, client, 290)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert [text.split()[0] for text in client.texts] == [str(n) for n in range(290, 300)]
        assert len(core.kafka.page_reads) <= 7, "the pages before the position were read, too"


async def test_a_page_that_no_broker_gives_is_asked_for_until_one_does(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("a"), value("b"))
        client, session = FakeClient(), core.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_from, core, session, client, 0)
            await trio.testing.wait_all_tasks_blocked(0)
            core.kafka.away = True
            await trio.sleep(10)
            core.kafka.away = False
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        assert client.texts == ["a", "b"]


async def test_a_page_that_nobody_waits_for_any_more_is_not_read(autojump_clock):
    async with open_core(readers=1) as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(2000)])
        session = core.session()
        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            [log] = core.audience.logs(session, "global")
            core.kafka.page_gate = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(core.reads.fetch, log, 0)
                await wait_all_tasks_blocked()
                with trio.move_on_after(1):
                    await core.reads.fetch(log, 600)
                nursery.start_soon(core.reads.fetch, log, 1100)
                await wait_all_tasks_blocked()
                assert core.reads.waiting == 2
                core.kafka.page_gate.set()
            await wait_all_tasks_blocked()
        assert core.reads.waiting == 0
        assert [first for _, _, first, _ in core.kafka.page_reads] == [0, 1024]


async def test_what_is_no_message_is_told_by_the_tail_and_not_again_by_a_page(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, value("m0"), b"no JSON", value("m2"))
        async with core.connected(FakeClient()) as session:
            [log] = core.audience.logs(session, "global")
            page = await core.reads.fetch(log, 0)
        assert page.messages == 2
        assert not page.rejected


async def test_a_session_that_is_aborted_aborts_its_connection(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        stuck = FakeClient(room=0)
        async with core.connected(stuck) as session:
            core.kafka.produce(GLOBAL, value("never read"))
            await wait_all_tasks_blocked()
            session.abort()
            await wait_all_tasks_blocked()
            assert stuck.aborted
            assert stuck.closed is None


async def test_a_page_that_grows_while_it_is_awaited_is_read_once(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(10)])
        async with core.connected(FakeClient()) as session, trio.open_nursery() as nursery:
            await wait_all_tasks_blocked()
            [log] = core.audience.logs(session, "global")
            core.kafka.page_gate = trio.Event()
            nursery.start_soon(core.reads.fetch, log, 3)
            await wait_all_tasks_blocked()
            core.kafka.produce(GLOBAL, value("m10"))
            nursery.start_soon(core.reads.fetch, log, 5)
            await wait_all_tasks_blocked()
            core.kafka.page_gate.set()
        assert core.kafka.page_reads == [(GLOBAL, 0, 0, 10)]


async def test_live_chats_go_on_while_a_page_of_another_is_awaited(autojump_clock):
    async with open_core() as core:
        core.chats["ann"] = {"global", "old"}
        for topic in (GLOBAL, "kafka.chat.old"):
            core.kafka.create(topic)
        core.kafka.produce("kafka.chat.old", value("past"))
        client = FakeClient()
        async with core.connected(client) as session:
            await wait_all_tasks_blocked()
            core.kafka.page_gate = trio.Event()
            log = session.follower.cursors[core.kafka.key("kafka.chat.old")].log
            session.follower.unfollow(log)
            session.follower.follow(log, 0, afresh=True)
            await wait_all_tasks_blocked()
            core.kafka.produce(GLOBAL, value("live"))
            await wait_all_tasks_blocked()
            assert client.texts == ["live"]
            core.kafka.page_gate.set()
            await wait_all_tasks_blocked()
        assert client.texts == ["live", "past"]


async def test_retention_past_a_reader_moves_it_to_the_first_offset_that_is_left(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(100)])
        core.kafka.trim(GLOBAL, 60)
        client, session = FakeClient(), core.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_from, core, session, client, 10)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert client.texts == [f"m{n}" for n in range(60, 100)]


async def test_a_position_above_what_retention_took_is_not_moved(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(100)])
        core.kafka.trim(GLOBAL, 60)
        client, session = FakeClient(), core.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_from, core, session, client, 70)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert client.texts == [f"m{n}" for n in range(70, 100)]


async def test_a_topic_that_comes_later_is_followed_from_its_first_record(autojump_clock):
    async with open_core() as core:
        client = FakeClient()
        async with core.connected(client):
            core.kafka.create(GLOBAL)
            core.kafka.produce(GLOBAL, value("first"))
            await wait_all_tasks_blocked()
        assert client.texts == ["first"]


async def test_partitions_added_later_are_followed_from_their_first_record(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client):
            topic = core.kafka.topics[GLOBAL]
            topic.partitions[1] = type(topic.partitions[0])()
            core.kafka.produce(GLOBAL, value("before it was seen"), partition=1, tail=False)
            core.audience.followed.topic_opened(GLOBAL, topic.topic_id, {1: 0}, created=True)
            core.kafka.catch_up(GLOBAL, 0, partition=1)
            await wait_all_tasks_blocked()
        assert client.texts == ["before it was seen"]


async def test_a_recreated_topic_is_delivered_from_its_start(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client):
            core.kafka.produce(GLOBAL, value("one"), value("two"))
            await wait_all_tasks_blocked()
            core.kafka.delete(GLOBAL, LossCause.RECREATED)
            core.kafka.create(GLOBAL)
            core.kafka.produce(GLOBAL, value("anew"))
            await wait_all_tasks_blocked()
        assert client.texts == ["one", "two", "anew"]


async def test_a_log_cut_by_the_brokers_goes_on_at_its_new_end(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client):
            core.kafka.produce(GLOBAL, *[value(f"m{n}") for n in range(5)])
            await wait_all_tasks_blocked()
            log = core.kafka.topics[GLOBAL].partitions[0]
            log.end = 3
            core.audience.followed.position_lost(core.kafka.key(GLOBAL), 5, 3, LossCause.TRUNCATED)
            core.kafka.produce(GLOBAL, value("other 3"))
            await wait_all_tasks_blocked()
        assert client.texts == ["m0", "m1", "m2", "m3", "m4", "other 3"]


async def test_live_sessions_follow_a_subscription_from_where_it_was_made(autojump_clock):
    async with open_core() as core:
        core.kafka.create("kafka.chat.room")
        core.kafka.produce("kafka.chat.room", value("before"), value("after"), value("later"))
        client = FakeClient()
        async with core.connected(client):
            facts = core.kafka.topics["kafka.chat.room"]
            await core.audience.user_changed(
                SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=facts.topic_id, starts={0: 1})
            )
            await wait_all_tasks_blocked()
            core.kafka.produce("kafka.chat.room", value("live"))
            await wait_all_tasks_blocked()
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=False, starts={}))
            assert "kafka.chat.room" not in core.kafka.requested
            core.kafka.produce("kafka.chat.room", value("unheard"))
            await wait_all_tasks_blocked()
        assert client.texts == ["after", "later", "live"]


async def test_following_again_never_goes_before_what_the_connection_has_had(autojump_clock):
    async with open_core() as core:
        core.chats["ann"] = core.chats["bo"] = {"room"}
        core.kafka.create("kafka.chat.room")
        client = FakeClient()
        async with core.connected(client), core.connected(FakeClient(), "bo"):
            core.kafka.produce("kafka.chat.room", value("a"), value("b"))
            await wait_all_tasks_blocked()
            facts = core.kafka.topics["kafka.chat.room"]
            await core.audience.user_changed(SubscriptionChange(username="ann", chat="room", subscribed=False, starts={}))
            await core.audience.user_changed(
                SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=facts.topic_id, starts={0: 0})
            )
            await wait_all_tasks_blocked()
        assert client.texts == ["a", "b"]


async def test_a_session_accepted_while_no_broker_answers_begins_ten_seconds_before(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        core.kafka.away = True
        client = FakeClient()
        now = time.time_ns() // 1_000_000
        began = trio.current_time()
        async with core.connected(client):
            assert 1.9 < trio.current_time() - began < 2.1
            core.kafka.produce(GLOBAL, value("long ago"), time_ms=now - 60_000, tail=False)
            core.kafka.produce(GLOBAL, value("while away"), time_ms=now + 1000, tail=False)
            core.kafka.back()
            await trio.sleep(2)
        assert client.texts == ["while away"]


async def test_a_session_that_came_before_the_subscriptions_were_read_follows_its_own_later(autojump_clock):
    async with open_core() as core:
        core.chats["ann"] = set()
        core.kafka.create("kafka.chat.room")
        client, session = FakeClient(), core.session()
        now = time.time_ns() // 1_000_000
        with core.audience.joined(session, known=False):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, client, client)
                core.kafka.produce("kafka.chat.room", value("long ago"), time_ms=now - 60_000)
                core.kafka.produce("kafka.chat.room", value("since"), time_ms=now)
                core.chats["ann"] = {"room"}
                await core.audience.subscriptions_read()
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
        assert client.texts == ["since"]


async def test_a_client_that_leaves_ends_its_session_and_leaves_nothing(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, session = FakeClient(), core.session()
        with trio.fail_after(5), core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            client.leave(1001)
            assert await session.run(client, client) == 1001
        assert client.closed is None
        assert (core.audience.sessions, core.audience.partitions, core.kafka.requested) == (0, 0, set())


async def test_an_end_from_outside_writes_what_is_owed_and_then_the_close_frame(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, session = FakeClient(room=10), core.session()
        codes = []

        async def run():
            codes.append(await session.run(client, client))

        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await wait_all_tasks_blocked()
                core.kafka.produce(GLOBAL, value("a"))
                await wait_all_tasks_blocked()
                session.end(Close(code=1012, reason="restart"))
                await wait_all_tasks_blocked()
                assert codes == []
                client.make_room(float("inf"))
        assert (codes, client.closed, client.texts) == ([1012], (1012, "restart"), ["a"])


async def test_a_bug_in_one_session_closes_that_one_with_1011(autojump_clock):
    class Broken(FakeClient):
        def offer(self, frames):
            raise ZeroDivisionError

    async with open_core() as core:
        core.kafka.create(GLOBAL)
        good, bad = FakeClient(), Broken()
        session = core.session("bad")
        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            log = next(iter(session.follower.cursors.values())).log
            core.kafka.produce(GLOBAL, value("a"))
            session.follower.unfollow(log)
            session.follower.follow(log, 0, afresh=True)
            async with core.connected(good):
                with trio.fail_after(5):
                    assert await session.run(bad, bad) == 1011
                core.kafka.produce(GLOBAL, value("b"))
                await wait_all_tasks_blocked()
        assert bad.closed is not None
        assert bad.closed[0] == 1011
        assert good.texts == ["b"]


async def test_a_client_that_talks_too_much_is_closed_with_1008(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, session = FakeClient(), core.session()
        for _ in range(1001):
            client.say("x")
        with trio.fail_after(5), core.audience.joined(session, known=True):
            assert await session.run(client, client) == 1008
        assert client.closed is not None
        assert "1000 messages" in client.closed[1]


@pytest.mark.promise("p-talk")
async def test_a_client_that_talks_within_the_limit_is_left_alone(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client):
            for _ in range(5):
                for _ in range(990):
                    client.say(b"x")
                await trio.sleep(11)
            core.kafka.produce(GLOBAL, value("still here"))
            await wait_all_tasks_blocked()
        assert client.texts == ["still here"]


async def test_a_socket_that_is_closed_under_a_session_ends_it(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, session = FakeClient(room=0), core.session()
        with trio.fail_after(5), core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, client, client)
                await wait_all_tasks_blocked()
                core.kafka.produce(GLOBAL, value("a"))
                await wait_all_tasks_blocked()
                client.abort()


async def test_the_close_code_of_a_client_that_leaves_amid_messages_is_kept(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client, session = FakeClient(room=0), core.session()
        codes = []

        async def run():
            codes.append(await session.run(client, client))

        with core.audience.joined(session, known=True):
            await core.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await wait_all_tasks_blocked()
                core.kafka.produce(GLOBAL, value("a"))
                await wait_all_tasks_blocked()
                client.abort()  # the connection has seen the close frame, and takes nothing more
                await wait_all_tasks_blocked()
                client.leave(4001)
        assert codes == [4001]
