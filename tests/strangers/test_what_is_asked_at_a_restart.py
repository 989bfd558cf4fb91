"""Ops at the moment of a restart are done and answered, or not answered; never answered and not done, never done twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.client import Away, Refused, ask, open_chat
from tests.support.calls import following
from tests.support.clients import http
from tests.support.relay import open_relay
from tests.support.serving import spawned, until_ready
from tests.support.v1_client import open_v1

if TYPE_CHECKING:
    from tests.support.brokers import KafkaCluster
    from tests.support.chats import Chats
    from tests.support.serving import ChildServer

WRITERS = 6
BEFORE_EACH = 40  # answers between two restarts, so that there is always much under way
PAUSE_SECONDS = 0.02  # after a failure: while nobody is there, each try fails at once


class Account:
    """What was asked for, and what came of it.

    Attributes:
        told: text -> partition and offset, as the service has told.
        asked: every text, each once.
        refused: texts that the service has said not to have written.
    """

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, int]] = {}
        self.asked: set[str] = set()
        self.refused: set[str] = set()
        self.chats: set[str] = set()
        self.going = True
        self._news = trio.Event()

    def note(self, text: str, partition: int, offset: int) -> None:
        """Note that a message is acknowledged."""
        self.told[text] = partition, offset
        self._news.set()

    async def more(self, count: int) -> None:
        """Wait until this many more are acknowledged."""
        due = len(self.told) + count
        while len(self.told) < due:
            self._news = trio.Event()
            await self._news.wait()

    def next_text(self, who: str) -> str:
        """Return a text that is used once."""
        text = f"{who} {len(self.asked)}"
        self.asked.add(text)
        return text


async def write_by_ops(url: str, who: str, account: Account) -> None:
    async with open_chat(url, who, chats=["global"]) as chat:
        while account.going:
            text = account.next_text(who)
            try:
                sent = await chat.send("global", text)
            except Away:
                await trio.sleep(PAUSE_SECONDS)  # it may have been done or not
            else:
                account.note(text, sent.partition, sent.offset)


async def write_by_post(url: str, who: str, account: Account) -> None:
    while account.going:
        text = account.next_text(who)
        try:
            answer = await ask(url, "POST", "/send-message/chat/global", {"sender": who, "text": text})
        except Away:
            await trio.sleep(PAUSE_SECONDS)
        except Refused:
            account.refused.add(text)
        else:
            account.note(text, int(str(answer["partition"])), int(str(answer["offset"])))


async def subscribe_on_and_on(url: str, who: str, account: Account) -> None:
    number = 0
    while account.going:
        number += 1
        try:
            answer = await ask(url, "POST", f"/subscribing/{who}?topic=room{number}")
        except Away:
            await trio.sleep(PAUSE_SECONDS)
        else:
            account.chats.update(str(chat["chat"]) for chat in answer["chats"])  # type: ignore[attr-defined]


@pytest.mark.deadline(240)
@pytest.mark.promise("p-answered-is-done")
async def test_what_is_told_is_done_once_whatever_ends_the_service(kafka: KafkaCluster, chats: Chats):
    topic = chats.topic("global")
    kafka.create_topic(topic, 3)
    settings = chats.settings_for(kafka, sending__enabled=True, server__drain_seconds=1)
    account = Account()

    async def end(server: ChildServer, *, kill: bool) -> None:
        await account.more(BEFORE_EACH)
        if kill:
            server.kill()
        else:
            server.terminate()
        await server.wait()

    async with spawned(settings=settings) as first, open_relay(first.url) as relay:
        await until_ready(first)
        async with trio.open_nursery() as nursery:
            for number in range(WRITERS):
                write = write_by_ops if number % 2 else write_by_post
                nursery.start_soon(write, relay.url, f"writer{number}", account)
            nursery.start_soon(subscribe_on_and_on, relay.url, "zoe", account)
            await end(first, kill=False)
            async with spawned(settings=settings) as second:
                relay.service = second.url
                await end(second, kill=True)
            async with spawned(settings=settings) as third:
                relay.service = third.url
                await account.more(BEFORE_EACH)
                account.going = False
                await until_ready(third)
                told = {*account.chats}  # a call that is under way may be answered behind this list
                assert told <= {*await following(third.url, "zoe")}
                nursery.cancel_scope.deadline = trio.current_time() + 30  # a hang; all of them are told, or come to a time-out of ours
        async with spawned(settings=settings) as last, open_v1(last.url, "reader", ("from", "earliest"), ("chat", "global")) as reader:
            await reader.control("live")
            await until_ready(last)
            assert account.chats <= {*await following(last.url, "zoe")}
            page = await http(last.url, "GET", "/history/global?limit=1")
            assert page.status == 200
    stored = {(record.partition, record.offset): json.loads(record.value or b"")["text"] for record in kafka.records(topic)}
    times = Counter(stored.values())
    assert {text: stored.get(at) for text, at in account.told.items()} == {text: text for text in account.told}
    assert {text for text, count in times.items() if count > 1} == set()
    assert not account.refused & times.keys()
    assert times.keys() <= account.asked
    shown = [(frame["meta"]["partition"], frame["meta"]["offset"]) for frame in reader.frames if "sender" in frame]
    assert sorted(shown) == sorted(stored)
    assert len(account.told) >= 3 * BEFORE_EACH
