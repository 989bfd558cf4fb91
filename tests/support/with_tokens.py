"""Runs the suite with access on: WITH_TOKENS=1 has each service know an issuer, and each request carry a token of the user it names."""

from __future__ import annotations

import atexit
import os
import tempfile
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kafka_chat.settings.model import EveryoneSettings, RoleSettings

from .issuer import secret_auth, secret_token

if TYPE_CHECKING:
    from kafka_chat.settings.model import Settings
    from kafka_chat.web.app import ChatApp

WITH_TOKENS = os.environ.get("WITH_TOKENS") == "1"
_ALL = ("*",)
_NAMING = (["receive-message", "client"], ["receive-messages", "user"], ["subscribing"])


def with_issuer(settings: Settings) -> Settings:
    """Return settings with an issuer, if the suite runs with tokens and they have none."""
    if not WITH_TOKENS or settings.auth.issuers:
        return settings
    everyone = EveryoneSettings(read=_ALL, send=_ALL, create=_ALL)
    auth = secret_auth(_folder(), everyone=everyone, roles={"any": RoleSettings(act_as=_ALL)})
    return msgspec.structs.replace(settings, auth=auth)


def show_tokens(app: ChatApp) -> None:
    """Have each request and handshake that `app` gets carry a token, as a proxy in front could do it."""
    inner = app.asgi_app

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and not any(name == b"authorization" for name, _ in scope["headers"]):
            scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {_token(_user(scope['path']))}".encode())]
        await inner(scope, receive, send)

    app.asgi_app = asgi_app  # type: ignore[method-assign]


def _user(path: str) -> str:
    """Return whom a path names, if that can be a user."""
    segments = path.split("/")[1:]
    named = next((segments[len(before)] for before in _NAMING if segments[: len(before)] == before and len(segments) > len(before)), "")
    user = unicodedata.normalize("NFC", named)
    return user if 1 <= len(user.encode("utf-8", "replace")) <= 255 and user.isprintable() else "somebody"


@cache
def _token(user: str) -> str:
    return secret_token(user, roles=["any"], seconds=24 * 3600)


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="kafka_chat-secret-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
