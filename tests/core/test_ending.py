"""A command ends its process itself: no exit handler of a library runs while librdkafka's threads do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deadlines import HANG_SECONDS

# What libc runs at exit, as it runs the handler of OpenSSL.
WITH_A_HANDLER = """
import ctypes, sys
libc = ctypes.CDLL(None)
getattr(libc, "__cxa_atexit")(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
sys.argv = ["kafka-chat", *{arguments!r}]
from kafka_chat.__main__ import run
run()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["--version"], 0, "kafka-chat 0."),
        (["listen"], 2, "usage: kafka-chat listen"),
        (["cursor", "%"], 2, "kafka-chat: "),
        (["listen", "ann", "--url", "http://127.0.0.1:1/x?y"], 2, "kafka-chat: --url is"),
    ],
)
def test_no_exit_handler_runs_and_all_output_is_written(arguments: list[str], code: int, output: str, tmp_path: Path):
    command = [sys.executable, "-c", WITH_A_HANDLER.format(arguments=arguments)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert ended.returncode == code
    assert (ended.stdout + ended.stderr).startswith(output)


def test_the_handler_of_this_test_would_run(tmp_path: Path):
    text = WITH_A_HANDLER.format(arguments=[]).replace("from kafka_chat.__main__ import run\nrun()\n", "")
    ended = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, timeout=HANG_SECONDS, check=False)
    assert ended.returncode < 0
