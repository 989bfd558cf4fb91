"""What the supervisor does with workers that fail to start serving."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kafka_chat.settings.model import KafkaSettings, ServerSettings, Settings
from kafka_chat.telemetry.metrics import WorkersTelemetry
from kafka_chat.workers.supervisor import supervise
from kafka_chat.workers.worker_process import SILENT_SECONDS, WORKER
from tests.support.calls import until
from tests.support.workers import is_running

SETTINGS = Settings(server=ServerSettings(port=0, workers=2, drain_seconds=1.0), kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"))
SERVE = """
import signal, socket
line = socket.socket(fileno=int(sys.argv[2]))
line.recv(1 << 20)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
line.sendall(b'{"type":"Serving"}\\n')
signal.pause()
"""


class Supervised:
    """A supervisor in this process, whose workers are a few lines of Python each, or real ones.

    Attributes:
        urls: what was announced.
        code: with what it ended.
    """

    def __init__(self, starts: Path) -> None:
        self.urls: list[str] = []
        self.code: int | None = None
        self._starts = starts

    def starts(self, worker: int) -> int:
        """Return how often a worker was started."""
        return self._starts.read_text().split().count(str(worker)) if self._starts.exists() else 0


@pytest.fixture
def supervising(tmp_path: Path) -> Callable[[str], object]:
    @asynccontextmanager
    async def run(source: str | None, settings: Settings = SETTINGS, silent_seconds: float = SILENT_SECONDS) -> AsyncIterator[Supervised]:
        starts = tmp_path / "starts"
        supervised = Supervised(starts)
        script = f"import sys\nopen({os.fspath(starts)!r}, 'a').write(sys.argv[1] + ' ')\n{source}"
        command = WORKER if source is None else [sys.executable, "-I", "-S", "-c", script]

        async def supervise_here() -> None:
            supervised.code = await supervise(
                settings,
                reload=lambda: settings,
                announce=supervised.urls.extend,
                telemetry=WorkersTelemetry(),
                command=command,
                silent_seconds=silent_seconds,
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise_here)
            yield supervised
            if supervised.code is None:
                os.kill(os.getpid(), signal.SIGTERM)

    return run


@pytest.mark.promise("p-worker-restarts")
async def test_one_that_ends_at_once_is_started_again_ever_more_seldom(supervising) -> None:
    async with supervising("sys.exit(3)") as supervised:
        began = trio.current_time()
        for starts, seconds in ((3, 0.5), (4, 1.5)):  # again after 0, 0.5 and 1 s
            await until(lambda starts=starts: supervised.starts(0) >= starts)
            assert trio.current_time() - began >= seconds
    assert supervised.urls == []


async def test_one_that_cannot_start_does_not_keep_the_others_from_serving(supervising) -> None:
    async with supervising(f"if sys.argv[1] == '0': sys.exit(3)\n{SERVE}") as supervised:
        await until(lambda: supervised.starts(0) == 3)
        assert supervised.starts(1) == 1
        assert supervised.urls == []
    assert supervised.code == 0


async def test_all_serve_and_then_it_is_announced(supervising) -> None:
    async with supervising(SERVE) as supervised:
        await until(lambda: supervised.urls != [])
        assert supervised.starts(0) == supervised.starts(1) == 1
    assert supervised.code == 0


async def test_wrong_settings_end_it(supervising) -> None:
    async with supervising("sys.exit(2)") as supervised:
        await until(lambda: supervised.code is not None)
        assert supervised.code == 2


async def test_wrong_settings_of_a_later_one_do_not(supervising, tmp_path: Path) -> None:
    """It served when it started, so the others do, too."""
    once = f"import os\nif os.path.exists({os.fspath(tmp_path)!r} + '/served' + sys.argv[1]): sys.exit(2)\n"
    mark = f"open({os.fspath(tmp_path)!r} + '/served' + sys.argv[1], 'w').close()\n"
    end = "import time\nif sys.argv[1] == '0': time.sleep(0.2); sys.exit(1)\n"
    async with supervising(once + mark + SERVE.replace("signal.pause()", end + "signal.pause()")) as supervised:
        await until(lambda: supervised.starts(0) == 3)
        assert supervised.code is None
        assert supervised.starts(1) == 1
    assert supervised.code == 0


async def test_a_new_one_that_does_not_serve_leaves_the_old_one(supervising, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    once = f"import os\nif os.path.exists({os.fspath(tmp_path)!r} + '/served' + sys.argv[1]): sys.exit(2)\n"
    mark = f"open({os.fspath(tmp_path)!r} + '/served' + sys.argv[1], 'w').close()\n"
    async with supervising(once + mark + SERVE) as supervised:
        await until(lambda: supervised.urls != [])
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: "workers.not_renewed" in caplog.text)
        assert "the new worker 0 did not start serving: exit code 2" in caplog.text
        assert (supervised.starts(0), supervised.starts(1)) == (2, 1)
    assert supervised.code == 0


async def test_one_that_speaks_another_language_is_ended(supervising, caplog: pytest.LogCaptureFixture) -> None:
    async with supervising(SERVE.replace("Serving", "Dancing")) as supervised:
        await until(lambda: supervised.starts(0) == 2)
        assert "is not understood" in caplog.text


async def test_one_that_is_told_to_end_before_it_serves_makes_no_failure(supervising) -> None:
    async with supervising("import time\ntime.sleep(60)") as supervised:
        await until(lambda: supervised.starts(0) == supervised.starts(1) == 1)
    assert supervised.code == 0


async def test_one_that_hangs_is_killed_and_another_takes_its_place(supervising, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with supervising(None, silent_seconds=6.0) as supervised:  # real workers; there is no broker, and they serve all the same
        await until(lambda: bool(supervised.urls))
        first, other = (pid for _, pid in sorted(serving(caplog)))
        os.kill(first, signal.SIGSTOP)
        await until(lambda: len(serving(caplog)) == 3)
        lost = [record.getMessage() for record in caplog.records if "worker.lost" in record.getMessage()]
        assert len(lost) == 1, lost
        assert f"pid={first} " in lost[0]
        assert "did not answer for 6 s, and was killed" in lost[0]
        assert is_running(other)
        assert not is_running(first)
    assert supervised.code == 0


def serving(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """Return number and process of each worker that has come to serve."""
    found = (re.search(r"worker\.serving worker=(\d+) pid=(\d+)", record.getMessage()) for record in caplog.records)
    return [(int(match[1]), int(match[2])) for match in found if match]


async def test_one_whose_loop_does_not_run_is_found_though_its_process_lives(supervising, caplog: pytest.LogCaptureFixture) -> None:
    async with supervising(SERVE, silent_seconds=0.6) as supervised:  # which answers nothing
        await until(lambda: supervised.starts(0) >= 2 and supervised.starts(1) >= 2)
        assert "did not answer for 0.6 s" in caplog.text


async def test_a_command_that_is_not_there_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = None

    async def run() -> None:
        nonlocal code
        command = [os.fspath(tmp_path / "missing")]
        code = await supervise(SETTINGS, reload=lambda: SETTINGS, announce=lambda urls: None, telemetry=WorkersTelemetry(), command=command)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await until(lambda: caplog.text.count("cannot be started") >= 4)
        os.kill(os.getpid(), signal.SIGTERM)
    assert code == 0
