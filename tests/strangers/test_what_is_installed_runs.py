"""What pip installs from the wheel or from the source archive runs, with nothing beside it but what is declared."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.installed import build, install
from tests.support.serving import child

if TYPE_CHECKING:
    from tests.support.brokers import Broker


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("built"))


@pytest.mark.deadline(400)  # the first time ever it fetches what the lock names
@pytest.mark.parametrize("archive", ["wheel", "sdist"])
async def test_each_command_runs_from_an_environment_that_has_only_what_is_declared(
    archive: str, wheels: dict[str, Path], tmp_path: Path, kafka: Broker
) -> None:
    folder = await trio.to_thread.run_sync(install, wheels[archive], tmp_path / "environment")

    async def run(*command: str) -> subprocess.CompletedProcess[str]:
        options = {"cwd": tmp_path, "env": {"PATH": "/usr/bin:/bin"}, "capture_output": True, "text": True, "timeout": 60, "check": False}
        return await trio.to_thread.run_sync(partial(subprocess.run, [str(folder / command[0]), *command[1:]], **options))

    where = await run("python", "-c", "import kafka_chat; print(kafka_chat.__path__[0])")
    assert Path(where.stdout.strip()).is_relative_to(tmp_path), where
    checked = await run("kafka-chat", "check", "--bootstrap", kafka.bootstrap)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout

    async with child([str(folder / "kafka-chat"), "serve", "--port", "0", "--embedded"]) as server:
        url = (await server.wait_for(r"listening on (http://[^\s,]+)"))[1]
        async with child([str(folder / "kafka-chat"), "listen", "ann", "--rewind", "1", "--url", url]) as listener:
            sent = await run("kafka-chat", "send", "global", "hello", "--as", "bo", "--url", url)
            assert (sent.returncode, sent.stderr) == (0, "")
            await listener.wait_for("global bo: hello\n")
