"""Declares what each route needs, and checks it before the route runs; docs/access.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from quart import current_app, has_websocket_context, request, websocket

from ...access.decision import Need, decide
from ...access.identity import EVERYBODY, PENDING, Identity
from ..ports import service
from .peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from hypercorn.typing import WebsocketScope
    from quart import Quart

    from .token import TokenFinder

    _P = ParamSpec("_P")
    _R = TypeVar("_R")

IDENTITY = "kafka_chat.identity"  # in a scope: the client's identity, once known
_NEED = "_kafka_chat_need"


class HasTokenFinder(Protocol):
    """The part of the app that concerns tokens."""

    tokens: TokenFinder


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The user and chats that a request, or a message of a dialogue, names.

    Attributes:
        user: the user, in NFC, or None.
        chats: the names of the chats.
        token_follows: whether its token may come in the first frame; then everything is decided there.
    """

    user: str | None = None
    chats: Sequence[str] = ()
    token_follows: bool = False


def needs(need: Need, names: Callable[[], Named] = Named) -> Callable[[Callable[_P, Awaitable[_R]]], Callable[_P, Awaitable[_R]]]:
    """Declare a route's need; the route runs only if it is met.

    Args:
        need: the need.
        names: returns what the current request names; raises `RequestError` like the route.
    """

    def declare(route: Callable[_P, Awaitable[_R]]) -> Callable[_P, Awaitable[_R]]:
        @wraps(route)
        async def decided(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if need is not Need.PUBLIC:
                await _decide(need, names)
            return await route(*args, **kwargs)

        setattr(decided, _NEED, need)
        return decided

    return declare


def need_of(route: Callable[..., Any]) -> Need | None:
    """Return a route's need; None if it declares none."""
    return cast("Need | None", getattr(route, _NEED, None))


def check_all_declare(app: Quart) -> None:
    """Check that each route of `app` declares its need.

    Raises:
        RuntimeError: one does not.
    """
    for rule in app.url_map.iter_rules():
        if need_of(app.view_functions[rule.endpoint]) is None:
            raise RuntimeError(f"{rule.rule} ({rule.endpoint}) does not say what it needs: see web/requests/needs.py")


def identity() -> Identity:
    """Return the client's identity; not for a route that needs nothing."""
    if service().identify is None:
        return EVERYBODY
    return cast("Mapping[str, Identity]", websocket.scope if has_websocket_context() else request.scope)[IDENTITY]


async def _decide(need: Need, names: Callable[[], Named]) -> None:
    """Identify the client, and check the current request. Does not ask Kafka; for an invalid token nothing is parsed."""
    identify = service().identify
    if identify is None:
        return
    scope = cast("dict[str, Any]", websocket.scope if has_websocket_context() else request.scope)
    token, peer = cast("HasTokenFinder", current_app).tokens.find(), peer_of(cast("WebsocketScope", scope))
    found = None if token is None else await identify(token, peer)
    named = names()
    if found is None and named.token_follows:
        scope[IDENTITY] = PENDING
        return
    found = found or await identify(None, peer)
    decide(need, found, user=named.user, chats=named.chats)
    scope[IDENTITY] = found
