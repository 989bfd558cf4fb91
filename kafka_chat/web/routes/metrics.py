"""The metrics for Prometheus."""

from __future__ import annotations

from quart import Blueprint, Response
from quart_schema import tag

from ...access.decision import Need
from ...telemetry.metrics import METRICS_CONTENT_TYPE
from ..documents.openapi import add_to_operation
from ..ports import service
from ..requests.needs import needs

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
@needs(Need.USER)
async def show_metrics() -> Response:
    """Return all metrics in Prometheus' text format.

    No metric has a label per user or chat. With several workers on one port the answer covers all of them, each series with
    the label `worker`, whichever worker answers.
    """
    return Response(await service().telemetry.metrics_of_all(), content_type=METRICS_CONTENT_TYPE)
