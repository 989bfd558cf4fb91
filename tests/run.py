"""Run all tests, in several processes of pytest side by side: they wait most of the time, for brokers or for a time-out.

The first part writes where this does; what the others wrote comes when it is done, whole and one after the other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent
LOGS = HERE.parent / ".cache" / "tests"

# By what they need, and so that they take about the same time. What is in no other part is in the first.
PARTS: dict[str, Sequence[str]] = {
    "behaviour": (),
    "core and doors": (
        "tests/core",
        "tests/strangers",
        "tests/conformance",
        "tests/pages",
        "tests/behaviour/test_javascript_client.py",
        *(os.fspath(path.relative_to(HERE.parent)) for path in sorted((HERE / "edges").glob("test_hypercorn_*.py"))),
    ),
    "faults": ("tests/faults", "tests/prove"),
}
OPTIONS = ("--durations=25",)


def command(name: str) -> list[str]:
    """Return what runs a part."""
    others = [path for paths in PARTS.values() for path in paths]
    what = [*PARTS[name]] or [f"--ignore={path}" for path in others]
    # The processes write it when they end, each for itself.
    cache = f"cache_dir=.pytest_cache/{name.replace(' ', '-')}"
    return [sys.executable, "-m", "pytest", *OPTIONS, "-o", cache, *what]


def log_of(name: str) -> Path:
    """Return the file that a part writes to."""
    return LOGS / f"{name.replace(' ', '-')}.log"


@contextlib.contextmanager
def running(name: str, *, here: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part while the block runs."""
    with contextlib.ExitStack() as files:
        output = None if here else files.enter_context(log_of(name).open("wb"))
        # In a session of its own, so that Ctrl-C in a terminal reaches us alone, and we end it.
        with subprocess.Popen(
            command(name), cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process:
            yield process


def stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run all parts, and return 0 where each of them did."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    began = time.monotonic()
    first, *others = PARTS
    say(f"{' and '.join(repr(name) for name in others)} run beside this, and are shown after it")
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(running(name, here=name == first)) for name in PARTS}
        codes = {}
        try:
            for name, process in processes.items():
                codes[name] = process.wait()
                if name != first:
                    say(f"\n{name}:\n{log_of(name).read_text(errors='replace')}")
        except BaseException:
            for process in processes.values():
                process.terminate()  # what they have started ends with them; after SIGINT a test would fail, and the next one begin
            raise
    for name, code in codes.items():
        say(f"{name}: {'passed' if code == 0 else f'failed, exit code {code}'}")
    say(f"all tests took {time.monotonic() - began:.0f} s")
    return next((code for code in codes.values() if code), 0)


if __name__ == "__main__":
    sys.exit(main())
