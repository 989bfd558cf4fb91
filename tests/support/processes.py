"""Child processes that never outlive the test run."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

# A process of its own that reads what has to go when we are gone, however we go: PR_SET_PDEATHSIG would kill a child
# when the *thread* that started it ends, and tests start brokers from worker threads. A pid is told with its start
# time, for pids are used again.
_UNDERTAKER = r"""
import os, shutil, signal, sys
def started(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None
left = {}
for line in sys.stdin:
    word, what = line.rstrip("\n").split(" ", 1)
    if word == "process":
        left[what] = started(what)
    elif word == "ended":
        left.pop(what, None)
    elif word == "folder":
        left[what] = None
for what, start in left.items():
    if start is not None and started(what) == start:
        os.kill(int(what), signal.SIGKILL)
for what, start in left.items():
    if start is None:
        shutil.rmtree(what, ignore_errors=True)
"""


class _Undertaker:
    """The one that cleans up after us; started when first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def tell(self, word: str, what: object) -> None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _UNDERTAKER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,  # Ctrl-C in a terminal is for us, not for it
                )
                atexit.register(self._end)
            assert self._process.stdin is not None
            self._process.stdin.write(f"{word} {what}\n")
            self._process.stdin.flush()

    def _end(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


_undertaker = _Undertaker()


def start_process(
    command: Sequence[str],
    *,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that is killed when we end, in a session of its own (Ctrl-C does not reach it).

    Args:
        command: program and arguments.
        stdout: as `subprocess.Popen` has it.
        stderr: likewise.
        env: its environment, all of it; None: ours.
        cwd: where it runs.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=True)
    _undertaker.tell("process", process.pid)
    return process


def end_process(process: subprocess.Popen[bytes], *, kill: bool = False, seconds: float = 20) -> int:
    """End a child and wait for it; SIGKILL where SIGTERM was not enough.

    Returns:
        Its return code; negative: the signal that ended it.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # a stopped process takes no other signal
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)
    _undertaker.tell("ended", process.pid)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.returncode


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that is deleted afterwards, even if we are killed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _undertaker.tell("folder", folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _undertaker.tell("ended", folder)


def last_lines(path: Path, count: int = 60) -> str:
    """Return the end of a text file, for an error message."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:]) if path.exists() else f"({os.fspath(path)} was not written)"
