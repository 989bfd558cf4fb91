"""A client, in memory, and the core with it on a Kafka in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from kafka_chat.access.identity import EVERYBODY, Identity
from kafka_chat.chat.resume_cursor import cluster_mark
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.audience import Audience
from kafka_chat.delivery.audience.followed_topics import FollowedTopics
from kafka_chat.delivery.audience.offset_queries import OffsetQueries
from kafka_chat.delivery.history.pages import History
from kafka_chat.delivery.log.fan_out import FanOut
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.log.page_reads import PageReads, open_page_reads
from kafka_chat.delivery.ports import Disconnect
from kafka_chat.delivery.records.frames import text_payloads
from kafka_chat.delivery.session.context import SessionContext
from kafka_chat.delivery.session.factory import session_for
from kafka_chat.delivery.session.options import DEFAULT_OPTIONS, SessionOptions
from kafka_chat.delivery.session.resumable_session import ResumableSession
from kafka_chat.delivery.session.session import Session
from kafka_chat.delivery.writes.subscriptions import Subscriptions
from kafka_chat.settings.model import Settings
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.fake_subscription_log import FakePublisher, FakeSubscriptionLog
from tests.support.fake_topics import NAMES, FakeKafka


class FakeClient:
    """A Sink and an Inbox: a socket that takes `room` bytes without waiting, and what its client says."""

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self.got = b""
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self._owed = b""
        self._news = trio.Event()
        self._say, self._said = trio.open_memory_channel[str | bytes | Disconnect](10_000)

    @property
    def owed(self) -> int:
        return len(self._owed)

    @property
    def texts(self) -> list[str]:
        """The texts of all whole messages that it has got."""
        return [json.loads(payload)["text"] for payload in text_payloads(self.got)]

    @property
    def deliveries(self) -> list[dict[str, object]]:
        return [json.loads(payload) for payload in text_payloads(self.got)]

    def make_room(self, room: float) -> None:
        self.room = room
        self._news.set()
        self._news = trio.Event()

    def say(self, text: str | bytes) -> None:
        self._say.send_nowait(text)

    def leave(self, code: int = 1001) -> None:
        self._say.send_nowait(Disconnect(code=code))

    async def receive(self) -> str | bytes | Disconnect:
        return await self._said.receive()

    def offer(self, frames: bytes) -> bool:
        if self.closed or self.aborted:
            return False
        self._owed += frames
        self._write()
        return not self._owed

    async def flush(self) -> bool:
        await trio.lowlevel.checkpoint()
        while self._owed and not self.aborted:
            self._write()
            if self._owed:
                await self._news.wait()
        return not self.aborted and self.closed is None

    async def close(self, code: int, reason: str) -> None:
        closing, self.closed = self.closed, (code, reason)
        if closing is None:
            await self.flush()

    def abort(self) -> None:
        self.aborted = True
        self._news.set()

    def _write(self) -> None:
        size = int(min(self.room, len(self._owed)))
        self.got += self._owed[:size]
        self._owed = self._owed[size:]
        self.room -= size


class FakeCluster:
    """A cluster that stays the same."""

    def __init__(self, cluster_id: str) -> None:
        self.mark: bytes | None = cluster_mark(cluster_id)

    async def may_be(self, mark: bytes | None) -> bool:
        await trio.lowlevel.checkpoint()
        return mark is None or mark == self.mark


def told(client: FakeClient, kind: str) -> list[dict[str, Any]]:
    """Return the `meta` of the control frames of one type that a v1 client got."""
    return [frame["meta"] for frame in client.deliveries if frame["meta"].get("type") == kind]  # type: ignore[attr-defined,misc]


def cursor_of(client: FakeClient) -> str:
    """The cursor that a client makes of what it has had."""
    cursor, ids = "", {}
    for frame in client.deliveries:
        meta: dict[str, Any] = frame["meta"]  # type: ignore[assignment]
        if meta.get("cursor"):
            cursor, ids = meta["cursor"], {}
        elif "id" in meta:
            ids[frame["chat"], meta["partition"]] = meta["id"]
    return ".".join([cursor, *ids.values()])


@dataclass
class Core:
    """The core on a Kafka in memory."""

    kafka: FakeKafka
    audience: Audience
    memory: Memory
    reads: PageReads
    telemetry: Telemetry
    chats: dict[str, set[str]]
    subscribed: dict[tuple[str, str], SubscriptionChange]  # those that are in the log, unlike `chats`
    context: SessionContext

    @property
    def history(self) -> History:
        return History(self.context, lookup=self.kafka)

    def requested(self, options: SessionOptions, username: str = "ann") -> ResumableSession:
        session = session_for(options, self.context, username=username, caught_up=lambda: None)
        assert isinstance(session, ResumableSession)
        return session

    def session(self, username: str = "ann") -> Session:
        return Session(self.context, username=username)

    @asynccontextmanager
    async def connected(
        self, client: FakeClient, username: str = "ann", *, options: SessionOptions | None = None, identity: Identity = EVERYBODY
    ) -> AsyncIterator[Session]:
        """A session that runs while the block runs, its start fixed."""
        session = session_for(options or DEFAULT_OPTIONS, self.context, username=username, caught_up=lambda: None)
        session.authorize(identity)
        self.context.deadlines.watch(session)
        with self.audience.joined(session, known=True):
            await self.audience.wait_started(session, seconds=2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, client, client)
                yield session
                nursery.cancel_scope.cancel()
        self.context.deadlines.forget(session)


@asynccontextmanager
async def open_core(*, memory_bytes: int = 1 << 24, readers: int = 2) -> AsyncIterator[Core]:
    kafka, telemetry, memory = FakeKafka(), Telemetry(), Memory(memory_bytes)
    fanout, offsets = FanOut(telemetry=telemetry), OffsetQueries(kafka)
    chats: dict[str, set[str]] = {}

    subscribed: dict[tuple[str, str], SubscriptionChange] = {}

    def chats_of(username: str) -> Mapping[str, SubscriptionChange]:
        followed = sorted(chats.get(username, {"global"}))
        default = {chat: SubscriptionChange(username=username, chat=chat, subscribed=True, starts={}) for chat in followed}
        return default | {chat: change for (user, chat), change in subscribed.items() if user == username}

    kafka.listener = followed = FollowedTopics(fanout=fanout, offsets=offsets, memory=memory)
    audience = Audience(followed, tail=kafka, names=NAMES)
    async with open_page_reads(PageReads(kafka, telemetry=telemetry), readers=readers) as reads, trio.open_nursery() as nursery:
        nursery.start_soon(fanout.run)
        nursery.start_soon(audience.followed.starts.run)
        nursery.start_soon(audience.followed.walks.run)
        nursery.start_soon(offsets.run)
        context = SessionContext(
            audience=audience,
            subscription_log=FakeSubscriptionLog(FakePublisher()),
            subscriptions=Subscriptions(FakeSubscriptionLog(FakePublisher()), lookup=kafka, names=NAMES, settings=Settings()),
            chats_of=chats_of,
            sending=None,
            names=NAMES,
            offsets=offsets,
            limits=Settings().limits,
            cluster=FakeCluster("here"),
            page_reads=reads,
            memory=memory,
            telemetry=telemetry,
        )
        nursery.start_soon(context.deadlines.run)
        yield Core(kafka, audience, memory, reads, telemetry, chats, subscribed, context)
        nursery.cancel_scope.cancel()
