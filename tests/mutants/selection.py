"""A plugin of pytest for `make mutants`: which test goes over which line, and then only these tests, the quickest first."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest

ONLY = os.environ.get("MUTANTS_ONLY")  # a file with the names of the tests to run, in their order
RESULTS = os.environ.get("MUTANTS_RESULTS")  # a file to write how many seconds each test takes that passes, and which ones fail
# What a test of a mutant may take: of the processor, and in all. The process then ends by a signal, whatever the mutant does.
HUNG_CPU_SECONDS, HUNG_SECONDS = 20.0, 120.0
_seconds: dict[str, float] = {}
_failed: set[str] = set()


def pytest_sessionstart() -> None:
    # A failure is enough; nobody reads the smallest example of it.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutants", hypothesis.settings(), phases=phases, database=None)
    hypothesis.settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ONLY is not None:
        place = {name: index for index, name in enumerate(json.loads(Path(ONLY).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if ONLY is not None:
        signal.setitimer(signal.ITIMER_PROF, HUNG_CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, HUNG_SECONDS)
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.switch_context(item.nodeid)
    result: Any = yield
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    if RESULTS is not None:
        passed = {name: seconds for name, seconds in _seconds.items() if name not in _failed}
        Path(RESULTS).write_text(json.dumps([passed, sorted(_failed)]))
