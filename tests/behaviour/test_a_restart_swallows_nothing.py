"""A client that does not read when the service restarts gets, before the close, every notice that its cursor is past."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from kafka_chat.assembly import open_service
from kafka_chat.chat.resume_cursor import parse
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.service import Service
from tests.support.calls import until
from tests.support.chats import message
from tests.support.fakes import FakeClient

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats


def told(client: FakeClient) -> list[dict[str, Any]]:
    return [json.loads(payload)["meta"] for payload in text_payloads(client.got)]


def kinds(client: FakeClient) -> list[str]:
    return [meta.get("type", "message") for meta in told(client)]


async def live(service: Service, client: FakeClient, options: SessionOptions) -> None:
    async def accept() -> FakeClient:
        await trio.lowlevel.checkpoint()
        return client

    with service.admit("ann", options) as slot:
        await service.run_session(slot, accept=accept, inbox=client, peer="")


async def test_a_gap_that_waits_behind_what_a_slow_client_is_owed_is_told_before_the_cursor_after_it(kafka: KafkaCluster, chats: Chats):
    topic = chats.topic("global")
    kafka.create_topic(topic)
    settings = chats.settings_for(kafka, server__drain_seconds=30.0)
    slow, back = FakeClient(), FakeClient()
    async with open_service(settings) as service, trio.open_nursery() as nursery:
        nursery.start_soon(live, service, slow, SessionOptions(format=Format.V1))
        await until(lambda: kinds(slow)[-1:] == ["live"])
        slow.make_room(0)
        kafka.produce(topic, message("m0"))
        await until(lambda: slow.owed > 0)
        kafka.delete_topic(topic)
        kafka.create_topic(topic)
        kafka.produce(topic, message("new"))
        other = FakeClient()
        nursery.start_soon(live, service, other, SessionOptions(start=EARLIEST))
        await until(lambda: b'"new"' in other.got)  # the service knows of the new topic
        nursery.start_soon(service.drain)
        await until(lambda: slow.closed is not None)
        slow.make_room(float("inf"))
        await until(lambda: "reconnect" in kinds(slow))
        other.leave()
    assert kinds(slow) == ["hello", "live", "message", "gap", "reconnect"]
    gap, reconnect = told(slow)[-2:]
    assert (gap["first_lost"], gap["first_left"], gap["cause"]) == (1, 0, "recreated")
    async with open_service(settings) as service, trio.open_nursery() as nursery:
        nursery.start_soon(live, service, back, SessionOptions(format=Format.V1, cursor=parse(reconnect["cursor"])))
        await until(lambda: "live" in kinds(back))
        back.leave()
    assert kinds(back) == ["hello", "message", "live"]
    assert told(back)[0]["resume"] == "exact"
