"""What Prometheus asks for."""

from __future__ import annotations

from quart import Blueprint, Response
from quart_schema import tag

from ...telemetry import METRICS_CONTENT_TYPE
from ..openapi import add_to_operation
from ..seams import service

metrics = Blueprint("metrics", __name__)


@metrics.get("/metrics")
@tag(["Operation"])
@add_to_operation(
    responses={
        "200": {
            "description": "The metrics.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "kafka_chat_sessions 3.0\n"}},
        }
    }
)
async def show_metrics() -> Response:
    """Give all metrics in Prometheus' text format.

    No metric has a label per user or chat.
    """
    return Response(service().telemetry.metrics(), content_type=METRICS_CONTENT_TYPE)
