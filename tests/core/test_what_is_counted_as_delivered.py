"""Each message written to a client is counted once, whichever code writes it, and nothing else is counted."""

from __future__ import annotations

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fake_topics import value
from tests.support.fakes import Core, FakeClient, open_core

GLOBAL = "kafka.chat.global"


def counted(core: Core, name: str) -> float:
    families = text_string_to_metric_families(core.telemetry.metrics().decode())
    return next(sample.value for family in families for sample in family.samples if sample.name == f"kafka_chat_{name}_total")


async def test_what_comes_to_clients_that_wait_for_it_is_counted_for_each_of_them(autojump_clock):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        ann, bob = FakeClient(), FakeClient()
        async with core.connected(ann, "ann"), core.connected(bob, "bob"):
            await wait_all_tasks_blocked()
            for number in range(3):
                core.kafka.produce(GLOBAL, value(f"m{number}"), value("and more"))
                await wait_all_tasks_blocked()
        assert counted(core, "messages_delivered") == len(ann.texts) + len(bob.texts) == 12
        assert counted(core, "delivered_bytes") == len(ann.got) + len(bob.got)


async def test_a_page_that_waits_for_news_is_no_delivery(autojump_clock):
    async with open_core() as core, trio.open_nursery() as nursery:
        core.kafka.create(GLOBAL)
        latest = parse((await core.history.page(PageQuery(chat="global", start=EARLIEST))).next)
        nursery.start_soon(core.history.page, PageQuery(chat="global", cursor=latest, wait_seconds=30))
        await trio.sleep(1)
        core.kafka.produce(GLOBAL, value("news"))
        await wait_all_tasks_blocked()
        assert counted(core, "messages_delivered") == counted(core, "delivered_bytes") == 0


@pytest.mark.parametrize("options", [SessionOptions(), SessionOptions(start=EARLIEST)])
async def test_what_a_client_of_bare_messages_says_is_counted_and_comes_to_nothing(autojump_clock, options: SessionOptions):
    async with open_core() as core:
        core.kafka.create(GLOBAL)
        client = FakeClient()
        async with core.connected(client, options=options):
            for said in ("hello?", '{"op": "ping"}', b"\0"):
                client.say(said)
            await wait_all_tasks_blocked()
        assert counted(core, "client_messages_discarded") == 3
        assert client.got == b""
