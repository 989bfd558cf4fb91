"""The service behind the routes: admits clients, serves them, and closes their connections when the process ends."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from .access.identity import EVERYBODY, PENDING
from .changes import Changes
from .delivery.audience.named_chats import NamedChats
from .delivery.history.pages import History
from .delivery.session.dialogue import Dialogue
from .delivery.session.factory import session_for
from .delivery.session.first_frame import FirstFrame
from .delivery.session.live_socket import RESTARTS, Close, LiveSocket
from .delivery.session.options import DEFAULT_OPTIONS, SessionOptions
from .delivery.session.slots import ConnectionSlot, Slots
from .errors import BrokerError, Overloaded, TopicGone
from .loop_sharing import Turn
from .process.open_files import connections_limit
from .readiness import ALL_WELL, Readiness, held_notices, leaderless_notices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from .access.identity import Identity
    from .chat.resume_cursor import ResumeCursor
    from .delivery.ports import Inbox, Sink
    from .delivery.session.context import SessionContext
    from .delivery.session.dialogue import Answering
    from .delivery.session.session import Session
    from .delivery.writes.sending import Sending
    from .kafka.lookup import KafkaLookup
    from .kafka.tail import KafkaTail
    from .settings.model import Settings
    from .web.ports import Admission

SMALL_BYTES = 4096  # of options that any client may have; part of the cost of a connection
ANSWERS_BYTES = 16 << 20  # of answers that may be owed even if `memory.bytes` is small: a page of /history has 1 MiB
START_SECONDS = 2.0  # how long a connect waits for brokers that do not answer; then it is accepted anyway
KNOWN_SECONDS = 1.0  # of START_SECONDS: for subscriptions that another instance has confirmed
FAREWELLS_A_TURN = 16  # clients ended before yielding: each takes 100 µs for its last notices and its cursor
RESTART = Close(code=RESTARTS, reason="the service is restarting; reconnect")


class Service:
    """The service behind the routes.

    Attributes:
        settings: all of them.
        telemetry: records its events.
        names: chat <-> topic.
        identify: tells who asks by a token; None where access is off.
        subscriptions: reads and changes subscriptions.
        sending: writes messages.
        history: reads history pages.
        slots: the slots of admitted clients.
        draining: whether the process is ending; then no client is admitted.
    """

    def __init__(
        self,
        settings: Settings,
        context: SessionContext,
        *,
        sending: Sending,
        lookup: KafkaLookup,
        tail: KafkaTail,
        issuers_readiness: Callable[[], Readiness] = lambda: ALL_WELL,
    ) -> None:
        self.settings = settings
        self.telemetry = context.telemetry
        self.names = context.names
        self.identify = context.identify
        self.subscriptions = context.subscriptions
        self.sending = sending
        self.slots = Slots(connections_limit(settings), catching_up_limit=settings.limits.catching_up)
        self.named_chats = NamedChats(context.audience, lookup, context.names, settings.limits.absent_chats)
        self.history = History(context, lookup=lookup)
        self.draining = False
        self._context = context
        self._tail = tail
        self._issuers_readiness = issuers_readiness
        self._subscription_log = context.subscription_log
        self._audience = context.audience
        self._memory = context.memory
        self._live: set[LiveSocket] = set()
        self._departures = Changes()
        self._shutdown: Callable[[], Awaitable[None]] | None = None
        self._shutdown_known = trio.Event()

    def admit(
        self,
        username: str,
        options: SessionOptions = DEFAULT_OPTIONS,
        *,
        existing: Collection[str] = (),
        identity: Identity = EVERYBODY,
    ) -> ConnectionSlot:
        """Take a slot for one client.

        Args:
            username: whose it is.
            options: what it asks for.
            existing: of the chats that it names, what `named_chats.existing` has found.
            identity: who it is; its rights have been asked for. `PENDING`: its token comes in the first frame.

        Raises:
            Overloaded: no slot is free, too many clients are catching up, too many absent chats are named, or the service is draining.
        """
        if self.draining:
            raise Overloaded("the service is restarting; try again later", retry_after_seconds=1)
        # What a client names whose token is still to come is checked once it is known who asks.
        absent = () if identity is PENDING else self.named_chats.check(username, options.chats, existing)
        self._check_memory(options)
        slot = self.slots.take(username, options, identity)
        if absent:
            slot.on_left = self.named_chats.hold(username, absent)
        return slot

    def _check_memory(self, options: SessionOptions) -> None:
        """Raise `Overloaded` if all clients together hold too much memory, and these options would add much."""
        if self.owes_too_much and options.held_bytes > SMALL_BYTES:
            raise Overloaded("what is remembered for clients fills the memory (memory.bytes); try again later")

    @property
    def slots_taken(self) -> int:
        """How many clients are admitted now."""
        return self.slots.taken

    def owing(self, size: int) -> AbstractContextManager[None]:
        """Count `size` bytes of an answer while the block, which writes it, runs."""
        return self._memory.owing(size)

    def owe(self, size: int) -> None:
        """Count `size` more bytes of incomplete or unprocessed input from clients; fewer if negative."""
        self._memory.owe(size)

    @property
    def owes_too_much(self) -> bool:
        """Whether sockets are owed as many bytes as allowed (`memory.bytes`), so that no large answer may be added."""
        return self._memory.owed_bytes >= max(self._memory.limit_bytes, ANSWERS_BYTES)

    async def run_session(self, admission: Admission, *, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str) -> None:
        """Resolve its start offsets, accept, and deliver until the client is gone or the service ends.

        Args:
            admission: the admitted client.
            accept: completes the handshake; called once, when the start offsets are resolved.
            inbox: the client's messages.
            peer: the client's address, for the operator.
        """
        sink: Sink | None = None
        if admission.options.begins_by_frame:
            sink = await accept()
            if not await self._take_first_frame(admission, sink, inbox, peer):
                return
        started_by = trio.current_time() + START_SECONDS
        await self._know_cluster(admission.options.cursor)
        session = self._session(admission)
        with self._drainable(session):
            if session.subscriptions_known or not self._subscription_log.ready:  # a deadline only for clients that need it
                with trio.move_on_at(started_by), suppress(TopicGone):  # recreated: our knowledge is up to date
                    await self._subscription_log.wait_ready()
                    with trio.move_on_after(KNOWN_SECONDS):  # records that the topic has lost never come
                        await self._subscription_log.passed(session.subscriptions_known - 1)
            with self._audience.joined(session, known=self._subscription_log.ready):
                await self._audience.wait_started(session, seconds=max(0.0, started_by - trio.current_time()))
                await self._serve(session, sink=sink or await accept(), inbox=inbox, peer=peer)

    async def _know_cluster(self, cursor: ResumeCursor | None) -> None:
        """If a cursor is of another cluster, ask the brokers: the cluster may just have been replaced, and another instance noticed."""
        if cursor is not None:
            with trio.move_on_after(KNOWN_SECONDS), suppress(BrokerError):
                await self._context.cluster.may_be(cursor.cluster)

    def _session(self, admission: Admission) -> Session:
        """Make the session of a client. Only the session keeps the options, so that it can free a large cursor."""
        options, admission.options = admission.options, DEFAULT_OPTIONS
        session = session_for(options, self._context, username=admission.username, caught_up=admission.caught_up)
        session.authorize(admission.identity)
        return session

    async def _take_first_frame(self, admission: Admission, sink: Sink, inbox: Inbox, peer: str) -> bool:
        """Take the cursor, the token, or both from the first frame; False if the connection is closed instead."""
        was_pending = admission.identity is PENDING
        first = FirstFrame(admission, peer=peer, identify=self._context.identify, telemetry=self.telemetry)
        with self._drainable(first):
            await first.run(sink, inbox)
        if not first.came:
            return False
        try:
            if was_pending:
                await self._hold_named(admission)
            self._check_memory(admission.options)
        except Overloaded as error:
            await sink.close(1013, str(error))
            return False
        return True

    async def _hold_named(self, admission: Admission) -> None:
        """Count the absent chats that a client names, as `admit` does; raises `Overloaded`."""
        username, chats = admission.username, admission.options.chats
        existing = await self.named_chats.existing(username, chats)
        if absent := self.named_chats.check(username, chats, existing):
            admission.on_left = self.named_chats.hold(username, absent)

    async def run_dialogue(
        self, admission: Admission, *, answering: Answering, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str
    ) -> None:
        """Accept, and answer the client's messages until it is gone or the service ends.

        Args:
            admission: the admitted client.
            answering: makes the answers.
            accept: completes the handshake; called once.
            inbox: the client's messages.
            peer: the client's address, for the operator.
        """
        dialogue = Dialogue(answering, username=admission.username, memory=self._memory, telemetry=self.telemetry)
        dialogue.authorize(admission.identity)
        with self._drainable(dialogue):
            await self._serve(dialogue, sink=await accept(), inbox=inbox, peer=peer)

    @contextmanager
    def _drainable(self, live: LiveSocket) -> Iterator[None]:
        """While the block runs, let `drain` end `live` and wait for it."""
        self._live.add(live)
        self._context.deadlines.watch(live)
        if self.draining:
            live.end(RESTART)
        try:
            yield
        finally:
            self._live.remove(live)
            self._context.deadlines.forget(live)
            live.hold_nothing()
            self._departures.note()

    async def _serve(self, live: LiveSocket, *, sink: Sink, inbox: Inbox, peer: str) -> None:
        """Serve an accepted client until it is gone."""
        self.telemetry.session_opened(session_id=live.session_id, username=live.username, peer=peer)
        began, code = time.monotonic(), 1006
        try:
            code = await live.run(sink, inbox)
        finally:
            self.telemetry.session_closed(
                session_id=live.session_id,
                username=live.username,
                seconds=time.monotonic() - began,
                messages=live.messages,
                bytes_sent=live.bytes_sent,
                code=code,
                by_service=live.closed_by_service,
                fell_behind=live.fell_behind,
            )

    def readiness(self) -> Readiness:
        """Return the answer of `/ready`."""
        problems = [problem for problem in (self._tail.problem, self._subscription_log.problem) if problem]
        issuers = self._issuers_readiness()
        problems += issuers.problems
        if not self._subscription_log.ready and not problems:
            problems.append("the subscriptions are still being read")
        if self.draining:
            problems.append("the service is restarting and accepts no more clients")
        notices = [
            *issuers.notices,
            *leaderless_notices(self._tail.leaderless),
            *held_notices({(key.topic, key.partition): offset for key, offset in self._tail.held.items()}),
        ]
        return Readiness(ready=not problems, problems=problems, notices=notices)

    def watch_shutdown(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Drain once `wait()` returns. Only the first call counts."""
        if self._shutdown is None:
            self._shutdown = wait
            self._shutdown_known.set()

    async def drain(self) -> None:
        """Close every WebSocket with 1012; abort those that are still there after `server.drain_seconds`."""
        self.draining = True  # sessions that begin from now on end themselves
        self.history.drain()
        with trio.move_on_after(self.settings.server.drain_seconds):
            for count, live in enumerate(tuple(self._live), start=1):  # harmless for one that has left meanwhile
                live.end(RESTART)
                if not count % FAREWELLS_A_TURN:
                    await trio.lowlevel.checkpoint()
            while self._live:
                await self._departures.wait_beyond(self._departures.version)
        turn = Turn()
        for live in tuple(self._live):
            live.abort()
            await turn.share()

    async def run_until_read(self) -> None:
        """Once the subscriptions are read, have clients that connected earlier follow theirs."""
        await self._subscription_log.wait_ready()
        await self._audience.subscriptions_read()

    async def run_drain(self) -> None:
        """Wait for the server's shutdown, then drain."""
        await self._shutdown_known.wait()
        if self._shutdown is not None:
            await self._shutdown()
            await self.drain()
