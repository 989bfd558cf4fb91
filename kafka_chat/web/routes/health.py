"""Health and readiness: whether the process serves, and whether clients should be sent to it."""

from __future__ import annotations

from typing import Literal

import msgspec
from quart import Blueprint, Response
from quart_schema import document_response, tag

from ...access.decision import Need
from ..documents.openapi import example
from ..ports import service
from ..requests.bodies import json_answer
from ..requests.errors import BROKER_RETRY_SECONDS
from ..requests.needs import needs

health = Blueprint("health", __name__)


class Health(msgspec.Struct, frozen=True):
    """The process serves."""

    status: Literal["Consumer is running"]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Clients may be sent here.

    Attributes:
        ready: true.
        problems: none.
        notices: what the operator should know, though it serves; a sentence each.
    """

    ready: bool
    problems: tuple[str, ...]
    notices: tuple[str, ...]


class NotReady(msgspec.Struct, frozen=True, kw_only=True):
    """Clients should not be sent here now.

    Attributes:
        error: the problems, as one sentence.
        field: null.
        ready: false.
        problems: what keeps it from serving, a sentence each.
        notices: what the operator should know besides, a sentence each.
    """

    error: str
    field: None = None
    ready: bool
    problems: tuple[str, ...]
    notices: tuple[str, ...]


@health.get("/health")
@tag(["Operation"])
@document_response(Health)
@needs(Need.PUBLIC)
async def show_health() -> Response:
    """Say that the process serves.

    Always 200 while it does, whatever Kafka does: for a liveness probe.
    """
    return json_answer(Health("Consumer is running"))


@health.get("/ready")
@tag(["Operation"])
@document_response(Ready)
@example({"ready": True, "problems": [], "notices": ["kafka.chat.room1/3 has no leader; its messages wait"]})
@document_response(NotReady, 503)
@needs(Need.PUBLIC)
async def show_readiness() -> Response:
    """Say whether clients should be sent here.

    503 while no broker answers, the live end makes no progress, the subscriptions are still being read, or the process is
    about to stop; the body says what. A single partition without a leader is a notice, with 200. For a readiness probe.
    """
    found = service().readiness()
    problems, notices = tuple(found.problems), tuple(found.notices)
    if found.ready:
        return json_answer(Ready(ready=True, problems=problems, notices=notices))
    body = NotReady(error=f"not ready: {'; '.join(problems)}", ready=False, problems=problems, notices=notices)
    return json_answer(body, 503, {"Retry-After": str(BROKER_RETRY_SECONDS)})
