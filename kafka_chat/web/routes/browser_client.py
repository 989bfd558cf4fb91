"""The client for browsers, `/kafka-chat.js`."""

from __future__ import annotations

from pathlib import Path

from quart import Blueprint, Response, send_from_directory
from quart_schema import hide

from ...access.decision import Need
from ..requests.needs import needs

browser_client = Blueprint("browser_client", __name__)

_FOLDER = Path(__file__).parents[1] / "browser_client"


@browser_client.get("/kafka-chat.js")
@hide
@needs(Need.PUBLIC)
async def show_client() -> Response:
    """Return the module. Browsers revalidate it by its ETag each time, because it belongs to the service's version."""
    response = await send_from_directory(_FOLDER, "kafka-chat.js", mimetype="text/javascript")
    response.headers["Cache-Control"] = "no-cache"
    return response
