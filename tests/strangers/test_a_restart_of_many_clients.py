"""At a restart each of many clients gets its cursor, and none delays the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from kafka_chat.assembly import open_service
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.session.options import SessionOptions
from tests.support.fakes import FakeClient
from tests.support.loop_steps import loop_steps

CLIENTS = 120
CHATS = 100


def told(client: FakeClient) -> list[dict[str, Any]]:
    return [json.loads(payload)["meta"] for payload in text_payloads(client.got)]


@pytest.mark.deadline(120)
async def test_120_clients_of_100_chats_each_are_told_to_come_again_with_their_cursors(embedded, chats):
    options = SessionOptions(format=Format.V1, chats=tuple(f"chat{number}" for number in range(CHATS)))
    clients = [FakeClient() for _ in range(CLIENTS)]
    all_left = trio.Event()
    settings = chats.settings_for(embedded, server__drain_seconds=30.0)
    async with open_service(settings) as service, trio.open_nursery() as nursery:

        async def live(client: FakeClient) -> None:
            async def accept() -> FakeClient:
                await trio.lowlevel.checkpoint()
                return client

            with service.admit("ann", options) as slot:
                await service.run_session(slot, accept=accept, inbox=client, peer="")
            if all(other.closed for other in clients):
                all_left.set()

        for client in clients:
            nursery.start_soon(live, client)
        for client in clients:
            for _ in range(2000):
                if any(meta["type"] == "live" for meta in told(client)):
                    break
                await trio.sleep(0.05)
        with loop_steps() as steps:
            nursery.start_soon(service.drain)
            await all_left.wait()
    steps.check(ignore=("<test",))
    for client in clients:
        last = told(client)[-1]
        assert last["type"] == "reconnect"
        assert last["cursor"]
        assert client.closed is not None
        assert client.closed[0] == 1012
