"""A service in memory, at the port of the web edge, and a client that speaks ASGI to the application as hypercorn does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import trio

from kafka_chat.access.identity import EVERYBODY, Identity
from kafka_chat.chat.names import ChatNames
from kafka_chat.delivery.history.query import Page, PageQuery
from kafka_chat.delivery.log.memory import Memory
from kafka_chat.delivery.ports import Disconnect, Inbox, Published, Sink
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.dialogue import Answering, Dialogue
from kafka_chat.delivery.session.options import DEFAULT_OPTIONS, SessionOptions
from kafka_chat.delivery.writes.subscriptions import FollowedChat
from kafka_chat.errors import Conflict, NotFound, Overloaded, RequestError
from kafka_chat.settings.model import Settings
from kafka_chat.telemetry.metrics import Telemetry
from kafka_chat.web.app import ChatApp, create_app
from kafka_chat.web.requests.unavailable import CONTENT_TYPE
from tests.support.http_client import no_constant

if TYPE_CHECKING:
    from kafka_chat.access.decision import Identify

FIRST_EVENT = b"event: hello\ndata: {}\n\n"  # on each stream


class FakeAdmission:
    def __init__(self, service: FakeService, username: str, options: SessionOptions) -> None:
        self.username = username
        self.options = options
        self.identity = EVERYBODY
        self._service = service

    def identify(self, identity: Identity) -> None:
        self.identity = identity

    def caught_up(self) -> None:
        self._service.caught_up += 1

    def __enter__(self) -> FakeAdmission:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._service.admitted.remove(self.username)


@dataclass
class FakeReadiness:
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return not self.problems


class FakeSubscriptions:
    """Who follows what, in a dictionary; `failing` is raised instead of an answer."""

    def __init__(self, names: ChatNames) -> None:
        self.followed: dict[str, set[str]] = {}
        self.failing: Exception | None = None
        self.calls = 0
        self._names = names

    async def following(self, username: str, *, may_read: Callable[[str], bool]) -> list[FollowedChat]:
        return self._answer(username, may_read)

    async def subscribe(self, username: str, chats: Sequence[str], *, may_read: Callable[[str], bool]) -> list[FollowedChat]:
        if len(chats) > 100:
            raise RequestError(f"topic is given {len(chats)} times; at most 100 are allowed", field="topic")
        parsed = [self._names.parse(chat, field="topic") for chat in chats]
        self.followed.setdefault(username, set()).update(parsed)
        return self._answer(username, may_read)

    async def unsubscribe(self, username: str, chats: Sequence[str] | None, *, may_read: Callable[[str], bool]) -> list[FollowedChat]:
        parsed = self.followed.get(username, set()) if chats is None else {self._names.parse(chat, field="topic") for chat in chats}
        if "global" in parsed:
            raise Conflict("everybody follows global", field="topic")
        self.followed[username] = self.followed.get(username, set()) - parsed
        return self._answer(username, may_read)

    def _answer(self, username: str, may_read: Callable[[str], bool]) -> list[FollowedChat]:
        self.calls += 1
        if self.failing is not None:
            raise self.failing
        chats = sorted({"global"} | self.followed.get(username, set()))
        return [
            FollowedChat(chat, self._names.topic(chat), exists=chat == "global", default=chat == "global")
            if may_read(chat)
            else FollowedChat(chat, self._names.topic(chat), exists=None, default=chat == "global", denied=True)
            for chat in chats
        ]


class FakeSending:
    """Keeps what is sent; `failing` is raised instead of an answer."""

    def __init__(self, names: ChatNames) -> None:
        self.sent: list[tuple[str, str, str, str | None]] = []
        self.sent_by: list[str | None] = []
        self.failing: Exception | None = None
        self._names = names

    async def send(self, chat: str, sender: str, text: str, tag: str | None, *, by: str | None = None) -> Published:
        if self.failing is not None:
            raise self.failing
        if chat == "missing":
            raise NotFound("missing is not a chat: the topic kafka.chat.missing does not exist", field="chat")
        self.sent.append((chat, sender, text, tag))
        self.sent_by.append(by)
        return Published(self._names.topic(chat), 0, len(self.sent) - 1)


class FakeHistory:
    """Returns `answer`, and records the queries; `failing` is raised instead."""

    def __init__(self) -> None:
        self.asked: list[PageQuery] = []
        self.failing: Exception | None = None
        self.answer = Page(messages=[b'{"text":"m0"}'], gaps=[], next="NEXT", prev="PREV", end=True, closed=False, compacted=False)

    async def page(self, asked: PageQuery, *, waiting: object = None) -> Page:
        self.asked.append(asked)
        if self.failing is not None:
            raise self.failing
        return self.answer


class FakeService:
    """The service behind routes and connections, without Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self.names = ChatNames(settings.chats.prefix)
        self.identify: Identify | None = None
        self.identities: list[Identity] = []  # of those that were admitted
        self.looked_up = 0
        self.subscriptions = FakeSubscriptions(self.names)
        self.sending = FakeSending(self.names)
        self.history = FakeHistory()
        self.state = FakeReadiness()
        self.places = 10
        self.owed = 0
        self.admitted: list[str] = []
        self.caught_up = 0
        self.gone: list[str | bytes | Disconnect] = []  # what each client said last

    @property
    def named_chats(self) -> FakeService:
        return self

    async def existing(self, username: str, chats: Collection[str]) -> Collection[str]:
        self.looked_up += 1
        return ()

    def admit(
        self,
        username: str,
        options: SessionOptions = DEFAULT_OPTIONS,
        *,
        existing: Collection[str] = (),
        identity: Identity = EVERYBODY,
    ) -> FakeAdmission:
        self.identities.append(identity)
        if len(self.admitted) >= self.places:
            raise Overloaded("all places are taken; try again later")
        self.admitted.append(username)
        return FakeAdmission(self, username, options)

    owes_too_much = False

    @contextmanager
    def owing(self, size: int) -> Iterator[None]:
        self.owed += size
        try:
            yield
        finally:
            self.owed -= size

    def watch_shutdown(self, wait: Callable[[], Awaitable[None]]) -> None:
        self.watched = wait

    async def run_session(self, admission: FakeAdmission, *, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str) -> None:
        sink = await accept()
        if admission.options.format is Format.EVENTS:
            sink.offer(FIRST_EVENT)
        await sink.flush()
        self.gone.append(await inbox.receive())

    async def run_dialogue(
        self, admission: FakeAdmission, *, answering: Answering, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str
    ) -> None:
        dialogue = Dialogue(answering, username=admission.username, memory=Memory(1 << 20), telemetry=self.telemetry)
        await dialogue.run(await accept(), inbox)

    def readiness(self) -> FakeReadiness:
        return self.state


def app_with_service(settings: Settings | None = None) -> tuple[ChatApp, FakeService]:
    """Return the application as it is within its lifespan."""
    settings = settings or Settings()
    app = create_app(settings)
    app.service = service = FakeService(settings)
    return app, service


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        accepted: it was a WebSocket handshake that went well.
        frames: what then was sent to the client.
        close: the code and the reason of our close frame.
        subprotocol: that an accepted handshake names.
    """

    status: int | None
    headers: dict[str, str]
    body: bytes
    accepted: bool = False
    frames: tuple[str, ...] = ()
    close: tuple[int, str] | None = None
    subprotocol: str | None = None

    def json(self) -> Any:
        return json.loads(self.body, parse_constant=no_constant)


async def ask(
    app: ChatApp,
    method: str,
    target: str,
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    json_body: object = None,
    websocket: bool = False,
    root_path: str = "",
    scheme: str | None = None,
    raw_query: bytes | None = None,
    stalled: bool = False,
    says: Sequence[str | bytes] = (),
    frames: int = 0,
    subprotocols: Sequence[str] = (),
) -> Answer:
    """Send one request, or WebSocket handshake, to the application as hypercorn would.

    Args:
        app: the app.
        method: of HTTP; a handshake is a GET.
        target: as it stands on the request line, percent-encoded.
        body: of the request.
        headers: besides Host.
        json_body: sent as JSON, with its content type, where it is given.
        websocket: whether it is a handshake; the client leaves as soon as it is accepted, has said all, and has its frames. One
            that gets a stream of events leaves after its first piece.
        root_path: the one of a server behind a proxy.
        scheme: the one of a server behind a proxy.
        raw_query: the query where it is no ASCII.
        stalled: the end of the body never comes.
        says: the messages of a client whose handshake went well.
        frames: how many it waits for.
        subprotocols: that a handshake offers.
    """
    headers = {"host": "localhost:8001", **(headers or {})}
    if json_body is not None:
        body, headers = json.dumps(json_body).encode(), {"content-type": "application/json", **headers}
    if body:
        headers["content-length"] = str(len(body))
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "websocket" if websocket else "http",
        "asgi": {"spec_version": "2.3", "version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme or ("ws" if websocket else "http"),
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii") if raw_query is None else raw_query,
        "root_path": root_path,
        "headers": [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8001),
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }
    kind = "websocket" if websocket else "http"
    events: list[dict[str, Any]] = [
        {"type": "websocket.connect"} if websocket else {"type": "http.request", "body": body, "more_body": stalled}
    ]
    leave = trio.Event()
    started: dict[str, Any] = {}
    chunks: list[bytes] = []
    sent: list[str] = []
    closed: dict[str, Any] = {}
    if websocket:
        events += [{"type": "websocket.receive", "text": m if isinstance(m, str) else None, "bytes": m} for m in says]

    async def receive() -> dict[str, Any]:
        if events:
            return events.pop(0)
        await leave.wait()
        return {"type": f"{kind}.disconnect", "code": 1001}

    async def send(event: dict[str, Any]) -> None:
        if event["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            started.update(event)
        elif event["type"] in ("http.response.body", "websocket.http.response.body"):
            chunks.append(event["body"])
        elif event["type"] == "websocket.send":
            sent.append(event["text"])
        elif event["type"] == "websocket.close":
            closed.update(event)
        accepted = started.get("type") == "websocket.accept" and len(sent) >= frames
        streamed = event["type"] == "http.response.body" and (b"content-type", CONTENT_TYPE.encode()) in started["headers"]
        if accepted or streamed or (event["type"] == "websocket.http.response.body" and not event.get("more_body")):
            leave.set()

    with trio.fail_after(120):
        await app(scope, receive, send)
    answered = {name.decode().lower(): value.decode() for name, value in started.get("headers", [])}
    accepted, close = started.get("type") == "websocket.accept", (closed["code"], closed["reason"]) if closed else None
    return Answer(
        started.get("status"),
        answered,
        b"".join(chunks),
        accepted=accepted,
        frames=tuple(sent),
        close=close,
        subprotocol=started.get("subprotocol"),
    )
