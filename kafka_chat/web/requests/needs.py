"""What each route needs, declared where it is registered, and decided before it runs; docs/access.md."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from quart import current_app, has_websocket_context, request, websocket

from ...access.decision import Need, decide
from ...access.identity import EVERYBODY, PENDING, Identity
from ..ports import service
from .peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from quart import Quart

    from .token import TokenFinder

    _P = ParamSpec("_P")
    _R = TypeVar("_R")

IDENTITY = "kafka_chat.identity"  # in a scope: who asks, once that is known
_NEED = "_kafka_chat_need"


class HasTokenFinder(Protocol):
    """The app, as far as tokens are concerned."""

    tokens: TokenFinder


def needs(
    need: Need,
    *,
    user: Callable[[], str] | None = None,
    chats: Callable[[], Iterable[str]] | None = None,
    pending: Callable[[], bool] | None = None,
) -> Callable[[Callable[_P, Awaitable[_R]]], Callable[_P, Awaitable[_R]]]:
    """Declare what a route needs; it runs only if that is met.

    Args:
        need: likewise.
        user: returns whom the request names; may raise `RequestError`, as the route would.
        chats: returns which chats it names; likewise.
        pending: returns whether its token comes in the first frame, where everything is decided then.
    """

    def declare(route: Callable[_P, Awaitable[_R]]) -> Callable[_P, Awaitable[_R]]:
        @wraps(route)
        async def decided(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if need is not Need.PUBLIC and service().identify is not None:
                await _decide(need, user, chats, pending)
            return await route(*args, **kwargs)

        setattr(decided, _NEED, need)
        return decided

    return declare


def need_of(route: Callable[..., Any]) -> Need | None:
    """Return what a route needs; None: it does not say so."""
    return cast("Need | None", getattr(route, _NEED, None))


def check_all_declare(app: Quart) -> None:
    """Check that each route of `app` says what it needs.

    Raises:
        RuntimeError: one does not.
    """
    for rule in app.url_map.iter_rules():
        if need_of(app.view_functions[rule.endpoint]) is None:
            raise RuntimeError(f"{rule.rule} ({rule.endpoint}) does not say what it needs: see web/requests/needs.py")


def identity() -> Identity:
    """Return who asks."""
    scope = websocket.scope if has_websocket_context() else request.scope
    return cast("Mapping[str, Identity]", scope).get(IDENTITY, EVERYBODY)


async def _decide(
    need: Need, user: Callable[[], str] | None, chats: Callable[[], Iterable[str]] | None, pending: Callable[[], bool] | None
) -> None:
    scope = cast("dict[str, Any]", websocket.scope if has_websocket_context() else request.scope)
    identify = service().identify
    token = cast("HasTokenFinder", current_app).tokens.find()
    if token is None and pending is not None and pending():
        scope[IDENTITY] = PENDING
        return
    found = EVERYBODY if identify is None else await identify(token, peer_of(scope))  # type: ignore[arg-type]
    named, listed = None if user is None else user(), () if chats is None else tuple(chats())
    decide(need, found, user=named, chats=listed)
    scope[IDENTITY] = found
