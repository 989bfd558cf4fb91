"""The limit of connections follows from the limit of open files, and from the memory."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from kafka_chat.errors import SettingsError
from kafka_chat.process.open_files import CONNECTION_BYTES, OWN_FILES, connections_limit, memory_bytes
from kafka_chat.settings.model import Limits, ServerSettings, Settings
from tests.support.deadlines import HANG_SECONDS


def run_with_files(soft: int, hard: int, code: str) -> str:
    """Run Python code in a process with this limit of open files."""
    command = [sys.executable, "-c", f"from kafka_chat.process.open_files import *\nfrom kafka_chat.settings.model import *\n{code}"]
    limit = (soft, hard)
    return subprocess.run(
        command,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_SECONDS,
    ).stdout.strip()


@pytest.mark.promise("p-places")
def test_it_is_what_the_hard_limit_leaves_when_nothing_is_set() -> None:
    assert run_with_files(256, 1000, "print(connections_limit(Settings()))") == str(1000 - OWN_FILES)


@pytest.mark.promise("p-files")
def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = "connections_limit(Settings()); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert run_with_files(256, 1000, code) == "(1000, 1000)"


def test_what_is_set_counts() -> None:
    assert connections_limit(Settings(limits=Limits(connections=3))) == 3


def test_more_than_there_may_be_files_is_an_error() -> None:
    connections_limit(Settings())  # which raises the soft limit
    possible = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OWN_FILES
    with pytest.raises(SettingsError, match=rf"^limits.connections is {possible + 1}; at most {possible} is allowed .*\(ulimit -n\)$"):
        connections_limit(Settings(limits=Limits(connections=possible + 1)))


@pytest.mark.promise("p-places")
def test_a_million_files_promise_no_more_than_fit_in_half_of_the_memory() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OWN_FILES
    expected = min(files, memory_bytes() // 2 // CONNECTION_BYTES)
    assert connections_limit(Settings()) == expected
    assert connections_limit(Settings(server=ServerSettings(workers=4))) == min(files, memory_bytes() // 2 // CONNECTION_BYTES // 4)
    code = "open_files.memory_bytes = lambda: 4 << 30; print(open_files.connections_limit(Settings()))"
    assert run_with_files(4096, 4096, f"from kafka_chat.process import open_files; {code}") == str(4096 - OWN_FILES)


def test_too_few_files_for_anything_is_an_error() -> None:
    code = "try: connections_limit(Settings())\nexcept SettingsError as error: print(error)"
    sentence = f"this process may have {OWN_FILES} files open; at least {OWN_FILES + 1} are needed (ulimit -n)"
    assert run_with_files(OWN_FILES, OWN_FILES, code) == sentence
