"""The interface of the service that the web edge uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from quart import current_app

from ..access.identity import EVERYBODY
from ..delivery.session.options import DEFAULT_OPTIONS
from ..errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ..access.decision import Identify
    from ..access.identity import Identity
    from ..chat.names import ChatNames
    from ..delivery.history.pages import History
    from ..delivery.ports import Inbox, Sink
    from ..delivery.session.dialogue import Answering
    from ..delivery.session.options import SessionOptions
    from ..delivery.writes.sending import Sending
    from ..delivery.writes.subscriptions import Subscriptions
    from ..settings.model import Settings
    from ..telemetry.metrics import Telemetry

# Keys in a WebSocket's scope: a route stores an object there, with which the connection then serves the client.
ADMISSION = "kafka_chat.admission"
ANSWERING = "kafka_chat.answering"  # in addition, if the client's messages are answered
CROWDED = "kafka_chat.crowded"  # in a scope: the connection exceeds `limits.connections`; the value is that limit
HELD = "kafka_chat.held"  # in a request's scope: an `Admission` to release once the answer is written
REFUSAL = "kafka_chat.refusal"  # instead: a `Close` for a client that cannot read an HTTP status


class Admission(Protocol):
    """A slot for one WebSocket; `with admission:` releases it at the end.

    Attributes:
        options: its options, until its session begins.
        on_left: called when it is given back; None: nothing is.
    """

    options: SessionOptions
    on_left: Callable[[], None] | None

    @property
    def username(self) -> str:
        """The client's user."""

    @property
    def identity(self) -> Identity:
        """Who asks."""

    def identify(self, identity: Identity) -> None:
        """Take the identity that the first frame has brought."""

    def caught_up(self) -> None:
        """Note that its client has received everything that existed when it connected."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exc_info: object) -> bool | None: ...


class NamedChats(Protocol):
    """Which chats clients may name."""

    async def existing(self, username: str, chats: Collection[str]) -> Collection[str]:
        """Return which of these chats have a topic, if `admit` needs to know; otherwise return none."""


class Readiness(Protocol):
    """Whether clients should be sent here now."""

    @property
    def ready(self) -> bool:
        """False if there are `problems`."""

    @property
    def problems(self) -> Sequence[str]:
        """Why it cannot serve, one sentence each."""

    @property
    def notices(self) -> Sequence[str]:
        """What the operator should know although the service serves, one sentence each."""


class Service(Protocol):
    """The part of the service that routes and connections use."""

    @property
    def settings(self) -> Settings:
        """Its settings."""

    @property
    def telemetry(self) -> Telemetry:
        """Its events and metrics."""

    @property
    def names(self) -> ChatNames:
        """Chat names and topic names."""

    @property
    def identify(self) -> Identify | None:
        """Tells who asks by a token; None where access is off."""

    @property
    def subscriptions(self) -> Subscriptions:
        """Reads and changes subscriptions."""

    @property
    def sending(self) -> Sending:
        """Sends messages."""

    @property
    def history(self) -> History:
        """Reads history pages."""

    @property
    def named_chats(self) -> NamedChats:
        """Which chats clients may name."""

    def admit(
        self,
        username: str,
        options: SessionOptions = DEFAULT_OPTIONS,
        *,
        existing: Collection[str] = (),
        identity: Identity = EVERYBODY,
    ) -> Admission:
        """Give a place to one more client, or raise `Overloaded`; `existing` is what `named_chats` has found of what it names."""

    def owing(self, size: int) -> AbstractContextManager[None]:
        """Count `size` bytes of an answer while the block, which writes it, runs."""

    def owe(self, size: int) -> None:
        """Count `size` more bytes of incomplete or unprocessed input from clients; fewer if negative."""

    @property
    def owes_too_much(self) -> bool:
        """Whether clients are owed so many bytes that no large answer may be added."""

    async def run_session(self, admission: Admission, *, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str) -> None:
        """Deliver until the client is gone or we close. Never raises because of a client or a bug in a session."""

    async def run_dialogue(
        self, admission: Admission, *, answering: Answering, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str
    ) -> None:
        """Answer the client's messages until it is gone or we close. Never raises, either."""

    def watch_shutdown(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Close all sessions once `wait` returns, because the server shuts down. Only the first call counts."""

    def readiness(self) -> Readiness:
        """Return the answer of `/ready`."""


class Serving(Protocol):
    """An app that has a service during its lifespan."""

    service: Service | None


def service() -> Service:
    """Return the service of the app that answers this request.

    Raises:
        Overloaded: it is not open yet, or closed.
    """
    found = cast("Serving", current_app).service
    if found is None:
        raise Overloaded("the service is not running; try again later")
    return found


def check_room(scope: Mapping[str, Any]) -> None:
    """Raise `Overloaded` if a connection exceeds `limits.connections`."""
    if CROWDED in scope:
        raise Overloaded(f"all {scope[CROWDED]} connections are in use (limits.connections); try again later")
