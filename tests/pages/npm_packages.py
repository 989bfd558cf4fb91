"""Where packages of npm come from that tests use: `npm/package-lock.json` pins them by hash, and they stay in a cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.node import node, npm

_WANTED = Path(__file__).with_name("npm")
_FILES = ("package.json", "package-lock.json")
_ATTEMPTS = 3  # a download that broke off is tried again
_FETCH_SECONDS = 120


def npm_packages() -> Path:
    """Return a folder in whose `node_modules` they are, fetched now if they are not in the cache.

    The cache is that of Kafka's jars. Safe to call from several processes at once: one fetches, the others wait.

    Raises:
        RuntimeError: they could not be fetched.
    """
    cache = Path(os.environ.get("KAFKA_CHAT_CACHE") or Path.home() / ".cache" / "kafka_chat")
    found = cache / f"npm-{hashlib.sha256((_WANTED / 'package-lock.json').read_bytes()).hexdigest()[:16]}"
    if not found.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "npm-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not found.is_dir():
                _fetch(found)
    return found


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name) / "packages"
        folder.mkdir()
        for file in _FILES:
            shutil.copy(_WANTED / file, folder)
        command = [node(), npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        for _ in range(_ATTEMPTS):
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
            if run.returncode == 0:
                folder.rename(target)
                return
    raise RuntimeError(f"packages of npm could not be fetched: npm ci ended with {run.returncode}")
