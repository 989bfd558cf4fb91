"""A server with workers that was started in a terminal ends with it, however the terminal closes; with nohup it stays."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import trio

from tests.support.serving import child

COMMAND = str(Path(sys.executable).with_name("kafka-chat"))
# The first terminal that a session leader opens is its own.
SHELL = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for descriptor in range(3):
    os.dup2(terminal, descriptor)
os.execvp("bash", ["bash", "--norc", "-i"])
"""


async def said(file: Path, pattern: str) -> re.Match[str]:
    """Wait until a file has a match."""
    with trio.fail_after(50):
        while True:
            if await trio.Path(file).exists() and (match := re.search(pattern, await trio.Path(file).read_text())) is not None:
                return match
            await trio.sleep(0.05)


async def ended(pid: int) -> None:
    """Wait until a process is gone."""
    with trio.fail_after(40):
        try:
            ending = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            await trio.lowlevel.wait_readable(ending)
        finally:
            os.close(ending)


@pytest.mark.deadline(150)
@pytest.mark.parametrize(
    ("line", "shell_first", "stays"),
    [
        ("{serve}", False, False),
        ("{serve} &", False, False),
        ("{serve} &", True, False),  # as terminal emulators do it: SIGHUP to the shell, which passes it on; then the terminal goes
        ("nohup {serve} &", True, True),
    ],
)
@pytest.mark.promise("p-terminal")
async def test_it_ends_with_its_terminal(line: str, shell_first: bool, stays: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a table
    out, log = tmp_path / "out", tmp_path / "log"
    terminal, theirs = os.openpty()
    async with child([sys.executable, "-c", SHELL, os.ttyname(theirs)]) as shell:
        serve = f"{COMMAND} serve --embedded --port 0 --workers 2 >{out} 2>{log}"
        os.write(terminal, line.format(serve=serve).encode() + b"\n")
        await said(out, "listening on ")
        os.close(theirs)
        supervisor = int((await said(log, r"supervisor\[(\d+)\]"))[1])
        try:
            if shell_first:
                os.kill(shell.pid, signal.SIGHUP)
                await shell.wait()
            os.close(terminal)
            if stays:
                await said(log, "workers.renewed")  # what SIGHUP says where no terminal counts
                os.kill(supervisor, signal.SIGTERM)
            await ended(supervisor)
        except BaseException:
            os.kill(supervisor, signal.SIGKILL)
            raise
        assert "Traceback" not in log.read_text()
