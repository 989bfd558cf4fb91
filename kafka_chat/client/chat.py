"""Receives a user's messages over successive connections: none is lost, none comes twice."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import trio

from ..nursery import open_tasks
from .address import Address, address_of, quoted
from .backoff import Pauses
from .come_again import RESTARTS, is_passing, pause_after
from .connection import LOST, Closed, Connection, open_connection
from .event_queue import Arrivals
from .events import (
    Answer,
    Challenge,
    Event,
    Failed,
    Gap,
    Hello,
    Live,
    NotUnderstood,
    Pong,
    Reconnect,
    Sent,
    Subscribed,
    Unsubscribed,
    parse_bare_frame,
    parse_frame,
)
from .http_api import ANSWER_SECONDS, Away, Refused, subscribe
from .progress import Progress
from .query import Asked, in_frame
from .tokens import NO_TOKEN, Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from .events import Control, Message
    from .query import Moment
    from .tokens import TokenSource

STEADY_SECONDS = 30.0  # a connection that lasted this long counts as a success
LATE_SECONDS = 5.0  # how late a heartbeat may be
DONE = 1000
OWN_CODES = 4000  # from here on codes are private to services: RFC 6455 section 7.4.2
LEFT = Closed(DONE, "")

_AnswerT = TypeVar("_AnswerT", bound=Answer)
_log = logging.getLogger("kafka_chat.client")


@asynccontextmanager
async def open_chat(
    url: str,
    username: str,
    *,
    cursor: str | None = None,
    from_: Moment | None = None,
    rewind: int = 0,
    until: Moment | None = None,
    chats: Sequence[str] = (),
    tags: Sequence[str] = (),
    senders: Sequence[str] = (),
    subscribe_to: Sequence[str] = (),
    bare: bool = False,
    token: TokenSource | None = None,
    tell: Callable[[str], None] = _log.info,
) -> AsyncIterator[Chat]:
    """Receive a user's messages while the block runs, each once, across lost connections.

    ```python
    async with open_chat("http://127.0.0.1:8001", "ann", rewind=10) as chat:
        async for event in chat:
            match event:
                case Message(chat=room, sender=sender, text=text):
                    print(room, sender, text)
                case Gap():
                    print("lost", event)
                case Live():
                    print("messages from here on are new")
    ```

    Args:
        url: the service's URL, `http://host:port`, with a path prefix if it has one.
        username: the user whose messages to receive.
        cursor: begin after it; the `cursor` of an earlier `Chat`.
        from_: where to begin without a cursor.
        rewind: begin with the last N messages of each chat, if there is neither of them.
        until: end after the messages older than this; `Live` never comes.
        chats: only these chats, subscribed or not, without subscribing. None: those the user follows.
        tags: only messages with one of these, or with none.
        senders: only messages from one of these.
        subscribe_to: first subscribe the user to these chats.
        bare: also accept a service without kafka-chat.v1: messages have no positions, there are no ops, and messages sent
            while the connection is lost are not received.
        token: says who connects, where the service asks for it: a token, or a function, async or not, that returns one. That is called
            before the first connection, before a token ends, and where the service has refused it, one call at a time. What it
            raises ends the chat, but for `Away`, after which it is called again.
        tell: called with a sentence when the connection opens or ends; by default a logger.

    Raises:
        Refused: by iterating and by ops, if reconnecting will not help.
        SettingsError: `url` is invalid.
    """
    asked = Asked(from_=from_, rewind=rewind, until=until, chats=tuple(chats), tags=tuple(tags), senders=tuple(senders))
    chat = Chat(url, address_of(url), username, asked, cursor=cursor, subscribe_to=tuple(subscribe_to), bare=bare, token=token, tell=tell)
    async with open_tasks() as tasks:
        tasks.start_soon(chat.run)
        yield chat
        await chat.aclose()


class Chat:
    """What `open_chat` yields: iterate over it in one task at a time to receive events; call its methods from any task.

    It ends when `until` is reached, and raises `Refused` if reconnecting will not help.
    """

    def __init__(
        self,
        url: str,
        address: Address,
        username: str,
        asked: Asked,
        *,
        cursor: str | None,
        subscribe_to: tuple[str, ...],
        bare: bool,
        token: TokenSource | None,
        tell: Callable[[str], None],
    ) -> None:
        self._url = url
        self._address = address
        self._username = username
        self._asked = asked
        self._subscribe_to = subscribe_to
        self._bare = bare
        self._tokens = Tokens(token)
        self._tell = tell
        self._come = Progress(cursor)  # of received events, where the next connection continues
        self._taken = Progress(cursor)  # of events taken by the caller
        self._begun = False  # the service has sent `hello`
        self._arrivals = Arrivals()
        self._connection: Connection | None = None  # a connection that accepts ops
        self._greeted = trio.Event()
        self._trying = trio.CancelScope()
        self._receiving: trio.CancelScope | None = None  # during a connection; cancelling it closes it properly
        self._no_ops: Refused | Away | None = None  # why ops are refused, if waiting would not help
        self._refused: Refused | None = None
        self._ended = trio.Event()

    @property
    def cursor(self) -> str | None:
        """Where to continue later: after everything taken by iterating. None if not known yet."""
        return self._taken.cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            Refused: no more events come, and reconnecting will not help.
        """
        while (event := await self._arrivals.take()) is not None:
            self._taken.note(event)
            if isinstance(event, Event):
                return event
        if self._refused is not None:
            raise self._refused
        raise StopAsyncIteration

    async def subscribe(self, chat: str) -> Subscribed:
        """Subscribe the user to a chat, on all connections; raises as `send` does."""
        return await self._ask({"op": "subscribe", "chat": chat}, Subscribed, again=True)

    async def unsubscribe(self, chat: str) -> Unsubscribed:
        """Unsubscribe the user from a chat; raises as `send` does."""
        return await self._ask({"op": "unsubscribe", "chat": chat}, Unsubscribed, again=True)

    async def send(self, chat: str, text: str, *, tag: str | None = None) -> Sent:
        """Write a message to a chat, and return where Kafka stored it.

        Raises:
            Refused: the service refuses it.
            Away: the service cannot do it now, or did not answer; then it may or may not have been done.
        """
        return await self._ask({"op": "send", "chat": chat, "text": text, "tag": tag}, Sent, again=False)

    async def ping(self) -> None:
        """Return once the service has answered; raises as `send` does."""
        await self._ask({"op": "ping"}, Pong, again=True)

    async def aclose(self) -> None:
        """Close the connection properly."""
        (self._receiving or self._trying).cancel()
        await self._ended.wait()

    async def run(self) -> None:
        """Connect and reconnect until closed, refused or done; `open_chat` runs it."""
        try:
            with self._trying:
                await self._come_again_and_again()
        except Refused as refused:
            self._refused = refused
        finally:
            self._no_ops = self._refused or Away("the chat has ended")
            self._arrivals.end()
            self._greeted.set()
            self._ended.set()

    async def _come_again_and_again(self) -> None:
        pauses = Pauses()
        while True:
            visit = _Visit()
            try:
                await self._subscribe_first()
                closed = await self._visit(visit)
                why = closed.reason if closed.code == LOST.code else _sentence(closed)
            except Away as away:
                closed, why = Closed(0, ""), str(away)
                visit.away_until = trio.current_time() + away.retry_seconds
            except Refused as refused:
                if not self._tokens.is_over(refused.code):
                    raise
                closed, why = Closed(0, ""), str(refused)
            if closed is LEFT or (closed.code == DONE and visit.speaks_v1 and self._asked.until is not None):
                return
            if closed.code == NO_TOKEN and self._tokens.is_over(closed.code):
                closed = Closed(0, "")
            if pause_after(closed.code) is None and (closed.code != DONE or visit.speaks_v1):
                raise Refused(why, code=closed.code, reason=closed.reason)
            if visit.steady:
                pauses.reset()
            await self._stay_away(pauses, visit, closed.code, why)

    async def _stay_away(self, pauses: Pauses, visit: _Visit, code: int, why: str) -> None:
        told = visit.away_until - trio.current_time()
        # A restarting service gives random pauses; a full one gives every client the same.
        pause = told if visit.restarts else max(told, 0) + pauses.next(after=code)
        self._tell(f"{why}; reconnecting{f' in {pause:.1f} s' if pause >= 0.1 else ''}")
        await trio.sleep(max(pause, 0))

    async def _subscribe_first(self) -> None:
        if self._subscribe_to:
            absent = await subscribe(self._url, self._username, self._subscribe_to, token=await self._tokens.current())
            self._tell(f"subscribed {self._username} to {', '.join(self._subscribe_to)}")
            for chat in absent:
                self._tell(f"{chat} does not exist yet; once it does, it is followed from its first message")
            self._subscribe_to = ()

    async def _visit(self, visit: _Visit) -> Closed:
        """Receive over one connection, and return how it ended.

        Raises:
            Refused: the next connection would end in the same way.
            Away: there was no connection.
        """
        cursor = self._come.cursor
        path = f"/receive-message/client/{quoted(self._username)}?{self._asked.query(cursor, begun=self._begun)}"
        async with open_connection(self._address, path, token=await self._tokens.current()) as connection:
            visit.begun, visit.speaks_v1 = trio.current_time(), connection.speaks_v1
            if cursor is not None and in_frame(cursor) and connection.speaks_v1:
                connection.say({"op": "start", "cursor": cursor})
            if not connection.speaks_v1:
                self._check_bare_will_do()
            try:
                with trio.CancelScope() as self._receiving:
                    return await self._receive(connection, visit)
                return LEFT
            except NotUnderstood as error:
                raise Refused(f"{self._address.origin} does not speak kafka_chat's protocol: {error}", code=1002) from error
            finally:
                self._receiving = self._connection = self._no_ops = None
                if self._greeted.is_set():
                    self._greeted = trio.Event()

    async def _receive(self, connection: Connection, visit: _Visit) -> Closed:
        while not isinstance(frame := await connection.receive(), Closed):
            event = parse_frame(frame) if connection.speaks_v1 else parse_bare_frame(frame)
            if isinstance(event, Answer) and self._is_answer(connection, event):
                continue
            visit.note(event)
            if isinstance(event, Hello):
                await self._begin(connection, event)
            elif isinstance(event, Challenge):
                connection.start(partial(self._renew_token, connection))
            elif event is not None and self._come.note(event):
                self._begun |= getattr(event, "cursor", None) is not None
                await self._arrivals.put(event)
        return frame

    async def _begin(self, connection: Connection, hello: Hello) -> None:
        moved = hello.resume == "none" and self._come.cursor is not None
        self._come.note(hello)
        self._begun |= hello.cursor is not None
        if hello.limits.heartbeat_seconds is not None:
            connection.quiet_seconds = hello.limits.heartbeat_seconds + LATE_SECONDS
        connection.limit_bytes = hello.limits.client_message_bytes
        who = "nobody, because no token is shown" if hello.user_from == "anonymous" else self._username
        self._tell(f"connected to {self._url} as {who}")
        if hello.denied:
            self._tell(f"not to be read: {', '.join(hello.denied)}")
        self._connection = connection
        self._greeted.set()
        await self._arrivals.put(hello)
        if moved:
            await self._arrivals.put(Gap(chat=None, partition=None, first_lost=None, first_left=None, cause="cluster"))

    async def _renew_token(self, connection: Connection) -> None:
        """Show a new token. Where there is none, the connection ends with the old one, and it is asked for again."""
        try:
            token = await self._tokens.renew()
        except Away as away:
            self._tell(str(away))
            return
        if token is not None:
            await connection.ask({"op": "auth", "token": token})

    def _is_answer(self, connection: Connection, answer: Answer) -> bool:
        """Pass an answer to its asker; return whether it was one, since subscription changes also come without an op."""
        if connection.answer(answer):
            return True
        if isinstance(answer, Failed):
            self._tell(f"the service reports an error: {answer.message} ({answer.code})")
        return not isinstance(answer, Subscribed | Unsubscribed)

    def _check_bare_will_do(self) -> None:
        if not self._bare:
            raise Refused(f"{self._address.origin} does not speak kafka-chat.v1", code=1002)
        if self._begun:
            raise Away(f"{self._address.origin} does not speak kafka-chat.v1 now")  # other instances speak it, or this one will
        self._tell(f"connected to {self._url} as {self._username}")
        self._tell("it does not speak kafka-chat.v1: messages sent while the connection is lost will not arrive")
        self._no_ops = Refused(f"{self._address.origin} does not speak kafka-chat.v1, so nothing can be asked on this connection")
        self._greeted.set()

    async def _ask(self, op: Mapping[str, object], kind: type[_AnswerT], *, again: bool) -> _AnswerT:
        """Send an op, and return its answer.

        Args:
            op: the op, without `re`.
            kind: the type of its answer.
            again: whether it may be done twice; then it is repeated if the connection ends before the answer.
        """
        with self._arrivals.unbounded(), trio.move_on_after(ANSWER_SECONDS):
            while True:
                await self._greeted.wait()
                if self._no_ops is not None:
                    raise self._no_ops
                if self._connection is None:
                    continue  # it ended before our turn
                answer = await self._connection.ask(op)
                if isinstance(answer, kind):
                    return answer
                if isinstance(answer, Failed):
                    raise _error(answer)
                if answer is not None:
                    raise Refused(f"{self._address.origin} does not speak kafka_chat's protocol: it answers {op['op']} with {answer}")
                if not again:
                    raise Away("the connection ended before the answer; the request may or may not have been carried out")
        raise Away(f"there was no answer within {ANSWER_SECONDS:g} s; the request may or may not have been carried out")


@dataclass(slots=True)
class _Visit:
    """The state of one connection.

    Attributes:
        begun: when it opened; trio's time.
        live: whether everything that existed at the connect has arrived.
        speaks_v1: whether the service has accepted kafka-chat.v1.
        restarts: whether the service has announced a restart.
        away_until: when to reconnect at the earliest; trio's time.
    """

    begun: float | None = None
    live: bool = False
    speaks_v1: bool = False
    restarts: bool = False
    away_until: float = 0.0

    def note(self, event: Message | Control | None) -> None:
        """Note what an event says about the connection."""
        if isinstance(event, Live):
            self.live = True
        elif isinstance(event, Reconnect):
            self.restarts = True
            self.away_until = trio.current_time() + event.after_ms / 1000

    @property
    def steady(self) -> bool:
        """Whether it counts as a success."""
        return self.live or (self.begun is not None and trio.current_time() - self.begun > STEADY_SECONDS)


def _sentence(closed: Closed) -> str:
    if closed.reason and closed.code >= OWN_CODES:  # the reason with which a handshake would have been refused
        return f"{closed.reason} ({closed.code})"
    if closed.code == RESTARTS:
        return "the service is restarting"
    return f"the service closed the connection: {closed.code} {closed.reason}".rstrip()


def _error(failed: Failed) -> Refused | Away:
    sentence = f"{failed.message} ({failed.code})"
    if is_passing(failed.code):
        return Away(sentence, code=failed.code)
    return Refused(sentence, code=failed.code, reason=failed.message, field=failed.field)
