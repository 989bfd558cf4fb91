"""Which clients the suite runs: those of this repository, or the one that `CONFORMANCE_CLIENT` names."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.service import FakeService, open_fake_service
from tests.support.node import node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = Path(__file__).parent
OURS = {
    "javascript": [node(), str(HERE / "javascript_client.mjs")],
    "python": [sys.executable, str(HERE / "python_client.py")],
}
THEIRS = os.environ.get("CONFORMANCE_CLIENT")
CLIENTS = {"theirs": shlex.split(THEIRS)} if THEIRS else OURS


@pytest.fixture(params=CLIENTS)
def command(request: pytest.FixtureRequest) -> list[str]:
    """Each client in turn."""
    return CLIENTS[request.param]


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    """A service for one test."""
    async with open_fake_service() as service:
        yield service
