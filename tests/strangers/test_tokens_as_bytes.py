"""Whatever bytes stand where a token may be, a real connection is refused by a status or a close code, and nothing fails."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.calls import running
from tests.support.chats import Chats
from tests.support.issuer import AUDIENCE, ISS, SECRET, secret_token
from tests.support.raw_client import close_code, handshake_request, open_raw

TIMES = 200
PAGES, SOCKET = ("/history/global", "/subscribing/ann", "/receive-message/client/ann/events", "/metrics"), "/receive-message/client/ann"
BYTES = bytes(sorted({*range(0x20, 0x100)} - {0x7F}))


def some_bytes(rng: random.Random, good: bytes) -> bytes:
    """Return bytes of any kind, or a good token with some of them in it."""
    wild = bytes(rng.choices(BYTES, k=rng.choice((0, 1, 3, 40, 9000))))
    if rng.random() < 0.5:
        return wild
    at = rng.randrange(len(good))
    return good[:at] + (wild[:3] or b"~") + good[at + rng.randrange(3) :]


@pytest.mark.promise("p-token-refused")
async def test_any_bytes_in_a_tokens_place_are_refused(
    embedded: Broker, chats: Chats, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    issuer = {"issuer": ISS, "audience": AUDIENCE, "secret_file": str(tmp_path / "secret")}
    origins = ["https://chat.example"]
    settings = chats.settings_for(embedded, auth__issuers={"main": issuer}, auth__cookie="chat", auth__query=True, access__origins=origins)
    rng, good, seen = random.Random(15), secret_token().encode(), Counter[int]()
    async with running(settings) as server:
        for _ in range(TIMES):
            text, place = some_bytes(rng, good), rng.choice(("header", "cookie", "address", "subprotocol"))
            target = SOCKET if place == "subprotocol" else rng.choice((SOCKET, *PAGES))
            headers: dict[str, str] = {}
            latin = text.decode("latin-1")
            if place == "header":
                headers["Authorization"] = f"Bearer {latin}"
            elif place == "cookie":
                headers["Cookie"] = f"chat={latin}"
            elif place == "address":
                target += "?access_token=" + "".join(f"%{byte:02X}" for byte in text)
            else:
                headers["Sec-WebSocket-Protocol"] = f"{rng.choice(('kafka-chat.v1', 'kafka-chat.plain'))}, bearer.{latin}"
            async with open_raw(server.url) as client:
                if target.split("?")[0] == SOCKET:
                    await client.send(handshake_request(target, headers=headers))
                else:
                    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
                    await client.send("\r\n".join(lines).encode("latin-1"))
                status = (await client.read_response()).status
                if status == 101:
                    frame = await client.read_frame()
                    assert frame is not None
                    status, _ = close_code(frame)
            seen[status] += 1
            assert status in (400, 401, 431, 4400, 4401), (place, target, text)
    assert seen[401] > TIMES / 3
    assert seen[4401] > 0
    assert not [record for record in caplog.records if record.exc_info or "failed" in record.getMessage()]
