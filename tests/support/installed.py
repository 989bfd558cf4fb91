"""The package as its users install it: built, and put into an environment that has only what the lock names."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
_LOCK = _REPOSITORY / "requirements-runtime.lock"
_OLDEST = "python3.11"  # what is lacking on the oldest Python shows there
_SECONDS = 300  # for pip to fetch all, with a slow network


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
    found = shutil.which(_OLDEST)
    if found is not None and subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
        return Path(found)
    return Path(sys.base_prefix) / "bin" / "python3"


def _locked_packages(python: Path) -> Path:
    """Return a folder with what the lock names, in the cache that `kafka_distribution` has."""
    version = _run([str(python), "-c", "import sys; print(sys.implementation.cache_tag)"]).strip()
    cache = Path(os.environ.get("KAFKA_CHAT_CACHE") or Path.home() / ".cache" / "kafka_chat")
    folder = cache / f"locked-{version}-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "locked").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it however this process ends
        if not folder.is_dir():
            workshop = Path(tempfile.mkdtemp(prefix="installing-", dir=cache))
            try:
                _run([str(python), "-m", "venv", "--without-pip", str(workshop)])
                _run([*_pip(workshop / "bin" / "python"), "install", "--only-binary", ":all:", "--require-hashes", "-r", str(_LOCK)])
                (packages,) = (workshop / "lib").glob("python3*/site-packages")
                for old in cache.glob(f"locked-{version}-*"):
                    shutil.rmtree(old)
                packages.rename(folder)
            finally:
                shutil.rmtree(workshop, ignore_errors=True)
    return folder


def _pip(python: Path | None = None) -> list[str]:
    """Return the command of our own pip, for another environment."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *(["--python", str(python)] if python is not None else [])]


def _run(command: list[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=_REPOSITORY, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    # Installers name the hosts they fetch from, which are nobody's business in a log.
    assert done.returncode == 0, re.sub(r"(https?|ftp)://\S+|host=\S+", "(an address)", f"{command}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
