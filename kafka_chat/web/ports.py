"""What the web edge asks of the service."""

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

# Keys in a WebSocket's scope: a route stores something there, and the connection then serves the client with it.
ADMISSION = "kafka_chat.admission"
ANSWERING = "kafka_chat.answering"  # beside it, if the client's messages are answered
CROWDED = "kafka_chat.crowded"  # in a scope: its connection is one beyond `limits.connections`; the value is that limit
HELD = "kafka_chat.held"  # in a request's scope: an `Admission` that is given back once the answer is written
REFUSAL = "kafka_chat.refusal"  # in its place: a `Close` for a client that can read no HTTP status


class Admission(Protocol):
    """A slot for one WebSocket; `with admission:` gives it back at the end.

    Attributes:
        options: its options, until its session begins.
        on_left: called when it is given back; None: nothing is.
    """

    options: SessionOptions
    on_left: Callable[[], None] | None

    @property
    def username(self) -> str:
        """Whose it is."""

    @property
    def identity(self) -> Identity:
        """Who asks."""

    def identify(self, identity: Identity) -> None:
        """Take the identity that the first frame has brought."""

    def caught_up(self) -> None:
        """Note that its client has received everything that was there when it connected."""

    def __enter__(self) -> object: ...

    def __exit__(self, *exc_info: object) -> bool | None: ...


class NamedChats(Protocol):
    """Which chats clients may name."""

    async def existing(self, username: str, chats: Collection[str]) -> Collection[str]:
        """Return which of these chats have a topic, if `admit` needs to know; otherwise none of them."""


class Readiness(Protocol):
    """Whether clients should be sent here now."""

    @property
    def ready(self) -> bool:
        """False where `problems` has any."""

    @property
    def problems(self) -> Sequence[str]:
        """Why it cannot serve, one sentence each."""

    @property
    def notices(self) -> Sequence[str]:
        """What the operator should know although it serves."""


class Service(Protocol):
    """The service, as routes and connections see it."""

    @property
    def settings(self) -> Settings:
        """What it was opened with."""

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
        """Who follows what."""

    @property
    def sending(self) -> Sending:
        """How a message is written."""

    @property
    def history(self) -> History:
        """How a page of the past is read."""

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
        """Count `size` bytes of an answer for as long as the block that writes it lasts."""

    def owe(self, size: int) -> None:
        """Count `size` more bytes of incomplete or unprocessed input from clients; fewer if negative."""

    @property
    def owes_too_much(self) -> bool:
        """Whether clients are owed so much that no large answer may be added."""

    async def run_session(self, admission: Admission, *, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str) -> None:
        """Deliver until the client is gone or we close. Never raises because of a client or a bug in a session."""

    async def run_dialogue(
        self, admission: Admission, *, answering: Answering, accept: Callable[[], Awaitable[Sink]], inbox: Inbox, peer: str
    ) -> None:
        """Answer the client's messages until it is gone or we close. Never raises either."""

    def watch_shutdown(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Close all sessions once `wait` returns: the server goes down. Only the first call counts."""

    def readiness(self) -> Readiness:
        """Say whether clients should be sent here now."""


class Serving(Protocol):
    """An app that has a service while its lifespan lasts."""

    service: Service | None


def service() -> Service:
    """Return the service of the app that answers this request.

    Raises:
        Overloaded: it is not open (yet, or any more).
    """
    found = cast("Serving", current_app).service
    if found is None:
        raise Overloaded("the service is not running; try again later")
    return found


def check_room(scope: Mapping[str, Any]) -> None:
    """Raise `Overloaded` if a connection exceeds `limits.connections`."""
    if CROWDED in scope:
        raise Overloaded(f"all {scope[CROWDED]} connections are in use (limits.connections); try again later")
