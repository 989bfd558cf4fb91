"""What connections are held to, and the keys under which server and app find each other's objects."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Self

from ...settings.model import Limits
from ...telemetry.metrics import Telemetry
from .keepalive import Pulse

if TYPE_CHECKING:
    from collections.abc import Mapping

TERMS = "kafka_chat.terms"  # in the lifespan's `state`, which the server hands to every connection
CONNECTION = "kafka_chat.connection"  # in a connection's own copy of it, which the app sees as scope["state"]


class Terms:
    """The limits of every connection, who is told of their end, and who looks after their life.

    Shared and alive, so a copy of the scope (hypercorn's ProxyFixMiddleware makes deep ones) holds this very object.

    Attributes:
        limits: of the settings.
        telemetry: is told of connections that fail, or that we cut.
        pulse: looks at all connections; whoever makes the terms runs it.
        request_seconds: for a client to send a whole request, or to shake hands for TLS.
    """

    __slots__ = ("limits", "pulse", "request_seconds", "telemetry")

    def __init__(self, limits: Limits, telemetry: Telemetry) -> None:
        self.limits = limits
        self.telemetry = telemetry
        self.pulse = Pulse(limits)
        self.request_seconds = 30.0

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


def terms_in(state: Mapping[str, object]) -> Terms:
    """Return the terms that the app's lifespan left in `state`; the defaults, if it is not our app."""
    terms = state.get(TERMS)
    return terms if isinstance(terms, Terms) else _default_terms()


@cache
def _default_terms() -> Terms:
    return Terms(Limits(), Telemetry())
