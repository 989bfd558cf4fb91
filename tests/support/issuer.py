"""An issuer of tokens for tests: its keys, the tokens that it signs, and a server of its JWKS on loopback."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey

from kafka_chat.settings.model import AuthSettings, IssuerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ISS, AUDIENCE = "https://id.example/realms/chat", "kafka-chat"
CERTIFICATE = Path(__file__).parent / "localhost" / "certificate.pem"
SECRET = "a secret of thirty-two bytes and more"
_ANY = jws.JWSRegistry(algorithms=["HS256", "HS512", "ES256", "RS256", "EdDSA"], strict_check_header=False)


def key(kid: str) -> ECKey:
    """Return a new key."""
    return ECKey.generate_key("P-256", {"kid": kid})


def token(
    by: Key, user: str = "ann", *, seconds: float = 600, algorithm: str = "ES256", header: Mapping[str, Any] | None = None, **claims: object
) -> str:
    """Return a token.

    Args:
        by: whose key signs it.
        user: whom it names.
        seconds: how long it is valid from now on.
        algorithm: that it is signed with.
        header: further parameters of its header.
        claims: further ones, or others in place of those.
    """
    now = time.time()
    body = {"iss": ISS, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + seconds, **claims}
    kid = {"kid": by.kid} if by.kid is not None else {}
    text = json.dumps({name: value for name, value in body.items() if value is not None})
    return jws.serialize_compact({"alg": algorithm, **kid, **(header or {})}, text, by, registry=_ANY)


def secret_token(user: str = "ann", **claims: Any) -> str:
    """Return a token that is signed with `SECRET`."""
    return token(OctKey.import_key(SECRET), user, algorithm="HS256", **claims)


def secret_auth(folder: Path, **more: Any) -> AuthSettings:
    """Return settings with one issuer, whose secret is `SECRET`."""
    file = folder / "secret"
    file.write_text(SECRET)
    issuer = IssuerSettings(issuer=ISS, audience=AUDIENCE, secret_file=str(file), roles_claim="roles")
    return AuthSettings(issuers={"main": issuer}, **more)


class JwksServer:
    """Serves keys.

    Attributes:
        url: of them.
        keys: that it has now.
        answer: in place of them: all bytes of an answer; None: the keys.
        requests: how many there were.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.url = f"http://127.0.0.1:{port}/jwks" if tls is None else f"https://localhost:{port}/jwks"
        self._tls = tls
        self.keys: list[Key] = []
        self.answer: bytes | None = None
        self.requests = 0
        self._answers = trio.Event()
        self._answers.set()

    def hang(self) -> None:
        """Take requests, and do not answer."""
        self._answers = trio.Event()

    def go_on(self) -> None:
        """Answer again."""
        self._answers.set()

    async def serve(self, socket: trio.SocketStream) -> None:
        """Answer one request."""
        stream = socket if self._tls is None else trio.SSLStream(socket, self._tls, server_side=True, https_compatible=True)
        async with stream:
            asked = b""
            try:
                while b"\r\n\r\n" not in asked:
                    asked += await stream.receive_some()
            except trio.BrokenResourceError:
                return  # who asked does not trust us
            self.requests += 1
            await self._answers.wait()
            body = json.dumps({"keys": [one.as_dict(private=False) for one in self.keys]}).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
            try:
                await stream.send_all(self.answer if self.answer is not None else head + body)
            except trio.BrokenResourceError:
                return  # who asked has left


@asynccontextmanager
async def open_jwks_server(*keys: Key, tls: bool = False) -> AsyncIterator[JwksServer]:
    """Serve keys while the block runs; with `tls` as localhost, by the certificate `CERTIFICATE`."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    server = JwksServer(listener.socket.getsockname()[1], context)
    server.keys = list(keys)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, server.serve, [listener]))
        yield server
        nursery.cancel_scope.cancel()
