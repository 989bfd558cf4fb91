"""A filter matches a name in any Unicode spelling; the delivered message is unchanged."""

from __future__ import annotations

import json
import unicodedata
from random import Random
from urllib.parse import urlencode

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.records.batch import BATCH_BYTES, Batch
from kafka_chat.delivery.records.formats import Format, View
from kafka_chat.delivery.records.record import Record
from kafka_chat.web.requests.parameters import Query, parse_options
from tests.support.fake_topics import value
from tests.support.fakes import FakeClient, open_core
from tests.support.loop_steps import loop_steps

ROOM = "kafka.chat.room"
NFC, NFD = (unicodedata.normalize(form, "José") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("asked", [NFC, NFD])
@pytest.mark.parametrize("name", ["sender", "tag"])
@pytest.mark.parametrize("format", list(Format))
@pytest.mark.promise("p-filters-nfc")
async def test_every_spelling_of_a_name_passes_the_filter_and_stays_as_it_was_produced(autojump_clock, asked, name, format):
    query = urlencode({name: asked, "chat": "room", "from": "earliest"}).encode()
    options = parse_options(query, format=format, names=ChatNames("kafka.chat."), now_ms=1_764_064_800_000)
    async with open_core() as core:
        core.kafka.create(ROOM)
        client = FakeClient()
        async with core.connected(client, options=options):
            for spelling in (NFC, NFD, "Jose"):
                core.kafka.produce(ROOM, value(spelling, **{"tag": "", "sender": "ann", name: spelling}))
                await wait_all_tasks_blocked()
        parsed = Query(query)
        page = await core.history.page(PageQuery(chat="room", start=EARLIEST, tags=parsed.filter("tag"), senders=parsed.filter("sender")))
    got = client.got.decode("utf-8", "replace")
    for spelling in (NFC, NFD):
        assert got.count(f'"{name}":"{spelling}"') == 1
    assert '"Jose"' not in got
    assert [json.loads(message)[name] for message in page.messages] == [NFC, NFD]


async def test_names_made_to_be_compared_slowly_hold_nobody_up():
    dice = Random(7)
    marks = "\u0301\u0327\u0323\u0300"
    records: list[Record] = []
    while sum(record.size for record in records) < BATCH_BYTES:
        offset = len(records)
        name = "".join(f"a{''.join(dice.choice(marks) for _ in range(30))}" for _ in range(10)) + str(offset)
        records.append(Record(offset, value("m", sender=name, tag="a" + "\u0301\u0327" * 170)))
    batch = Batch.decode(records, PartitionKey(ROOM, "id", 0), first=0, next=len(records), chat="room", max_bytes=10_000)
    with loop_steps() as steps:
        await trio.lowlevel.checkpoint()
        assert not batch.marks(View(senders=frozenset({"a"})), first=0, end=len(records))
        await trio.lowlevel.checkpoint()
    steps.check()
