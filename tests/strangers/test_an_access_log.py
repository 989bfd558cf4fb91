"""Hypercorn's own access log has one line per request, in which the client cannot forge anything."""

from __future__ import annotations

import re

import pytest

from tests.support.clients import http
from tests.support.serving import spawned_hypercorn

EMBEDDED = {"KAFKA_CHAT_KAFKA__EMBEDDED": "true"}
FORGED = '127.0.0.1:1 - - [now] "GET /health 1.1" 200 1 "-" "-"'
ATOMS = "%(r)s|%(R)s|%(U)s|%(Uq)s|%(q)s|%(f)s|%(a)s|%({x-any}i)s"


@pytest.mark.promise("p-access-log")
async def test_a_line_end_in_a_path_a_query_or_a_header_makes_no_line() -> None:
    async with spawned_hypercorn("--access-logfile", "-", "--access-logformat", ATOMS, env=EMBEDDED) as server:
        path = "/%0A" + FORGED.replace(" ", "%20").replace('"', "%22")
        headers = {"referer": b"a\x85b", "user-agent": b"\x9b31m", "x-any": b"\x85"}
        await http(server.url, "GET", f"{path}?%0A=%1B", headers=headers)
        await http(server.url, "GET", "/receive-message/client/%1B%5B2J%E2%80%AE%FF")
        await http(server.url, "GET", "/health")
        await server.wait_for(r"GET /health 1\.1")
        written = server.stdout
        lines = [line.partition("[INFO] ")[2] for line in written.splitlines() if "GET /" in line]
    assert len(lines) == 3
    assert lines[0].startswith("GET /%0A127.0.0.1:1%20-")
    assert r"|a\x85b|\x9b31m|\x85" in lines[0]
    assert lines[1].startswith("GET /receive-message/client/%1B%5B2J%E2%80%AE%FF 1.1|")
    assert not re.search(r"[^\x20-\x7e\n]", written)
