"""The application with an issuer of tokens and no Kafka, and every way into it, as its own registers have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kafka_chat.access.decision import Need
from kafka_chat.issuers.authority import Authority
from kafka_chat.settings.model import SendingSettings, Settings
from kafka_chat.web.app import ChatApp, create_app
from kafka_chat.web.requests.needs import need_of

from .fake_service import Answer, FakeService, app_with_service, ask

if TYPE_CHECKING:
    from kafka_chat.access.decision import Identify
    from kafka_chat.settings.model import AuthSettings

V1 = "kafka-chat.v1"
SENDING = SendingSettings(enabled=True)


async def guarded_app(auth: AuthSettings, **settings: Any) -> tuple[ChatApp, FakeService]:
    """Return the application as it is once the issuers' keys have been read."""
    app, service = app_with_service(Settings(auth=auth, sending=SENDING, **settings))
    authority = Authority(auth, service.telemetry)
    for source in authority.sources.values():
        assert await source.read_once()
    service.identify = authority.identify
    return app, service


@dataclass(frozen=True, slots=True)
class Way:
    """A way into the service.

    Attributes:
        rule: of its route.
        method: of HTTP; or `WebSocket`, `v1` (one that offers the subprotocol) or `message` (of a dialogue).
        need: what its route declares.
    """

    rule: str
    method: str
    need: Need

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"

    @property
    def names_user(self) -> bool:
        """Whether its path names a user."""
        return ":username>" in self.rule

    @property
    def names_chat(self) -> bool:
        """Whether it can name a chat."""
        return self.target("ann", "a") != self.target("ann", "b") or (self.method == "message" and self.need is Need.FOLLOW)

    def target(self, user: str, chat: str | None) -> str:
        """Return the address that names `user` and `chat`; None: it names a chat only where the path does so."""
        path = re.sub(r"<[^:>]*:username>", user, self.rule)
        in_path = re.sub(r"<[^:>]*:(?:chat|name)>", chat or "room1", path)
        if chat is None or in_path != path or self.method == "message" or self.need in (Need.USER, Need.PUBLIC):
            return in_path
        return f"{in_path}?{'topic' if self.need is Need.FOLLOW else 'chat'}={chat}"


def ways() -> list[Way]:
    """Return every way: each method of each route, and the messages of each dialogue."""
    app = create_app(Settings(sending=SENDING))
    found = []
    for rule in app.url_map.iter_rules():
        need = need_of(app.view_functions[rule.endpoint])
        assert need is not None, rule
        if rule.websocket:
            dialogue = not rule.rule.startswith("/receive-")
            found += [Way(rule.rule, method, need) for method in ("WebSocket", "message" if dialogue else V1)]
        else:
            found += [Way(rule.rule, method, need) for method in sorted((rule.methods or set()) - {"OPTIONS"})]
    return sorted(found, key=str)


async def go(
    app: ChatApp,
    way: Way,
    *,
    user: str = "ann",
    chat: str | None = None,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    query: str = "",
    sender: str | None = None,
) -> Answer:
    """Go that way, in the name of `user`, with `chat`.

    Args:
        app: into it.
        way: which.
        user: whom it names in the path, if it names one there.
        chat: that it names.
        headers: of the request.
        subprotocols: that it offers besides.
        query: at the end of the address.
        sender: of what it sends; None: `user`.
    """
    target = way.target(user, chat)
    if query:
        target += ("&" if "?" in target else "?") + query
    if way.method in ("WebSocket", V1, "message"):
        offers = [V1] if way.method == V1 else [] if not subprotocols else ["kafka-chat.plain"]
        said = f'{{"sender":"{sender or user}","text":"hello"}}' if way.need is Need.SEND else chat or "room1"
        messages = [said] if way.method == "message" else []
        return await ask(
            app,
            "GET",
            target,
            websocket=True,
            headers=dict(headers or {}),
            subprotocols=[*offers, *subprotocols],
            says=messages,
            frames=len(messages),
        )
    body: object = None
    if way.method == "POST":
        body = {"sender": sender or user, "text": "hello"} if way.need is Need.SEND else {}
    return await ask(app, way.method, target, headers=dict(headers or {}), json_body=body)


def status(answer: Answer) -> int:
    """Return the status that stands for an answer: of a close code, or of the error of a dialogue's message, the same as over HTTP."""
    if answer.close is not None:
        return {4400: 400, 4401: 401, 4403: 403, 1013: 503}[answer.close[0]]
    if answer.accepted:
        return next((403 for frame in answer.frames if '"error":"the token' in frame), 101)
    assert answer.status is not None
    return answer.status


def said(answer: Answer) -> object:
    """Return what an answer says to the client."""
    return answer.close or answer.frames or answer.body


def asked_of_kafka(service: FakeService) -> object:
    """Return all that was asked behind the door; compare it with what it was before."""
    calls = len(service.admitted), service.looked_up, len(service.history.asked), len(service.sending.sent), service.subscriptions.calls
    return calls, {user: set(chats) for user, chats in service.subscriptions.followed.items()}


def renew(app: ChatApp, identify: Identify | None = None) -> FakeService:
    """Return a new service for the application, which knows the same issuers, or asks `identify`."""
    before = app.service
    assert isinstance(before, FakeService)
    app.service = service = FakeService(before.settings)
    service.identify = identify or before.identify
    return service


@contextmanager
def trying(way: Way) -> Iterator[None]:
    """Name the way if the block fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"on the way {way}")
        raise
