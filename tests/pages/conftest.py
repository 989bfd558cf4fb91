"""The browser that pages are opened in; where there is none that is told loudly, and in CI it is a failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import Browser, chromium, open_chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MISSING = "Chromium is missing, so nothing was tried in a browser: apt-get install chromium"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser for one test."""
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    async with open_chromium() as browser:
        yield browser


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what was not tried."""
    skipped = sum(MISSING in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.section("NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"{MISSING} ({skipped} tests)", red=True, bold=True)
