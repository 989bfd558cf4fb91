"""A browser, a service, and a network between them; a missing browser is reported loudly, and in CI it is a failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.pages.chromium import Browser, chromium, open_chromium
from tests.pages.written import Written
from tests.support.brokers import EmbeddedBroker
from tests.support.chats import Chats
from tests.support.relay import Relay, open_relay
from tests.support.serving import Server, serving, until_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MISSING = "Chromium is missing, so nothing was tried in a browser: apt-get install chromium"


@pytest.fixture
def executable() -> None:
    """There is a browser."""
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)


@pytest.fixture
async def browser(executable: None) -> AsyncIterator[Browser]:
    """A browser for one test."""
    async with open_chromium() as browser:
        yield browser


@pytest.fixture
async def server(embedded: EmbeddedBroker, chats: Chats) -> AsyncIterator[Server]:
    """The service."""
    async with serving(chats.settings_for(embedded, sending__enabled=True), check_leaks=False) as server:
        await until_ready(server)
        yield server


@pytest.fixture
async def relay(server: Server) -> AsyncIterator[Relay]:
    """The network before it."""
    async with open_relay(server.url) as relay:
        yield relay


@pytest.fixture
def written(embedded: EmbeddedBroker, chats: Chats) -> Written:
    """The default chat, empty."""
    embedded.create_topic(chats.topic("global"), 4)
    return Written(embedded, chats.topic("global"), "global")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what was not tried."""
    skipped = sum(MISSING in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"{MISSING} ({skipped} tests)", red=True, bold=True)
