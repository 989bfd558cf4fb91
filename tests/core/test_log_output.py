"""All log lines of a process go to stderr in one way, at a limited rate, without blocking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each runs in a process of its own, for it is about what belongs to a process.
BEGIN = """
import logging, sys, threading, time, warnings
from kafka_chat.process.log_output import log_to_stderr
from kafka_chat.process.standard_streams import unblocked
"""


def run(body: str, *, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(BEGIN + body)
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)


WAYS = {
    "a library's logger": ("logging.getLogger('trio.serve_listeners').error('said')", "ERROR trio.serve_listeners: said"),
    "a warning": ("warnings.warn('said')", "UserWarning: said"),
    "print": ("print('said', file=sys.stderr)", "said"),
    "half a line": ("sys.stderr.write('said')", "said"),
    "a thread that fails": ("t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", "ZeroDivisionError"),
}


@pytest.mark.parametrize(("statement", "said"), WAYS.values(), ids=WAYS)
def test_whatever_is_said_goes_through_the_thread_that_writes_it(statement: str, said: str, tmp_path: Path) -> None:
    body = f"""
seen = []
with unblocked("stdout", "stderr"):
    log_to_stderr()
    put = sys.stderr.writer.put
    sys.stderr.writer.put = lambda lines: (seen.append(lines), put(lines))
    {statement}
    sys.stderr.flush()
assert b"".join(seen).decode() != ""
sys.stdout.write(b"".join(seen).decode())
"""
    ended = run(body, tmp_path=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert said in ended.stderr
    assert ended.stdout == ended.stderr


@pytest.mark.promise("p-log-rates")
def test_a_library_that_logs_on_and_on_writes_ten_lines_and_then_one_a_second(tmp_path: Path) -> None:
    body = """
with unblocked("stderr"):
    log_to_stderr()
    for number in range(10_000):
        logging.getLogger("trio.serve_listeners").error("accept returned %s", number)
    logging.getLogger("another").error("another")
"""
    lines = run(body, tmp_path=tmp_path).stderr.splitlines()
    accepts = [line for line in lines if "accept returned" in line]
    assert [line.rsplit(" ", 1)[1] for line in accepts[:10]] == [str(number) for number in range(10)]
    assert len(accepts) < 30
    assert lines[-1].endswith("ERROR another: another")


def test_a_process_that_fails_says_so_after_all_that_it_said_before(tmp_path: Path) -> None:
    body = """
with unblocked("stdout", "stderr"):
    log_to_stderr()
    for number in range(1_000):
        sys.stderr.write(f"{number}\\n")
    raise ValueError("a bug")
"""
    ended = run(body, tmp_path=tmp_path)
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert lines[:1_000] == [str(number) for number in range(1_000)]
    assert lines[-1] == "ValueError: a bug"


def test_an_owner_that_has_ended_leaves_the_streams_and_the_threads_as_they_were(tmp_path: Path) -> None:
    body = """
before = sys.stdout, sys.stderr, threading.active_count()
with unblocked("stdout", "stderr"):
    log_to_stderr()
    sys.stderr.write("one\\n")
assert (sys.stdout, sys.stderr, threading.active_count()) == before
logging.getLogger().error("two")
"""
    ended = run(body, tmp_path=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[0] == "one"
    assert ended.stderr.splitlines()[1].endswith("ERROR root: two")


def test_the_traceback_of_what_ends_the_process_is_there_though_nobody_reads_stdout(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(BEGIN + "with unblocked('stdout', 'stderr'):\n    print('x' * 1_000_000)\n    raise RuntimeError('the bug')\n")
    reader, writer = os.pipe()
    try:
        ended = subprocess.run([sys.executable, str(script)], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert ended.returncode == 1
    assert "RuntimeError: the bug" in ended.stderr


def test_what_raises_when_it_is_logged_raises_in_nobody_who_logs_it(tmp_path: Path) -> None:
    ended = run(
        """
class Mute:
    def __str__(self):
        raise RuntimeError("no words")

with unblocked("stdout", "stderr"):
    log_to_stderr()
    logging.getLogger("x").warning(Mute())
    logging.getLogger("x").warning("further")
""",
        tmp_path=tmp_path,
    )
    assert ended.returncode == 0
    assert "WARNING x: further" in ended.stderr
