"""What pip installs from the wheel or the source archive runs, with nothing but the declared dependencies."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.cache import cached
from tests.support.serving import child

if TYPE_CHECKING:
    from tests.support.brokers import Broker

REPOSITORY = Path(__file__).parents[2]
LOCK = REPOSITORY / "requirements-runtime.lock"
OLDEST = "python3.11"  # what is lacking on the oldest Python shows there
SECONDS = 300  # for pip to fetch all, with a slow network


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


def build(folder: Path) -> dict[str, Path]:
    """Build the package into `folder`.

    Returns:
        `wheel`: of the working tree; `sdist`: a wheel that is built from the source archive, as pip does.
    """
    (folder / "tree").mkdir()
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder / "tree")])
    (archive,) = (folder / "tree").glob("*.tar.gz")
    _run([*_pip(), "wheel", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder / "archive"), str(archive)])
    (from_tree,), (from_archive,) = (folder / "tree").glob("*.whl"), (folder / "archive").glob("*.whl")
    return {"wheel": from_tree, "sdist": from_archive}


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment in `folder` with the wheel and what `requirements-runtime.lock` names, and nothing else.

    Returns:
        The folder of its commands.

    Raises:
        AssertionError: something that the wheel requires is not there.
    """
    python = _python()
    _run([str(python), "-m", "venv", "--without-pip", str(folder)])
    (packages,) = (folder / "lib").glob("python3*/site-packages")
    shutil.copytree(_locked_packages(python), packages, dirs_exist_ok=True)
    pip = _pip(folder / "bin" / "python")
    _run([*pip, "install", "--no-index", "--no-deps", str(wheel)])
    _run([*pip, "check"])
    return folder / "bin"


def _python() -> Path:
    """Return the oldest Python that is here, without what is installed in our own environment."""
    found = shutil.which(OLDEST)
    if found is not None and subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
        return Path(found)
    return Path(sys.base_prefix) / "bin" / "python3"


def _locked_packages(python: Path) -> Path:
    """Return a folder with what the lock names."""
    version = _run([str(python), "-c", "import sys; print(sys.implementation.cache_tag)"]).strip()

    def fetch(folder: Path) -> None:
        environment = folder.with_name("environment")
        _run([str(python), "-m", "venv", "--without-pip", str(environment)])
        wanted = ["--only-binary", ":all:", "--require-hashes", "-r", str(LOCK)]
        _run([*_pip(environment / "bin" / "python"), "install", *wanted])
        (packages,) = (environment / "lib").glob("python3*/site-packages")
        packages.rename(folder)
        for old in folder.parents[1].glob(f"locked-{version}-*/"):
            shutil.rmtree(old)

    return cached(f"locked-{version}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}", fetch)


def _pip(python: Path | None = None) -> list[str]:
    """Return the command of our own pip, for another environment."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *(["--python", str(python)] if python is not None else [])]


def _run(command: list[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    # Installers name the hosts they fetch from, which are nobody's business in a log.
    assert done.returncode == 0, re.sub(r"(https?|ftp)://\S+|host=\S+", "(an address)", f"{command}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
