"""Where packages of npm come from that tests use: `npm/package-lock.json` pins them by hash, and they stay in a cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.support.cache import cached
from tests.support.node import node, npm

_WANTED = Path(__file__).with_name("npm")
_FILES = ("package.json", "package-lock.json")
_ATTEMPTS = 3  # a download that broke off is tried again
_FETCH_SECONDS = 120


def npm_packages() -> Path:
    """Return a folder in whose `node_modules` they are.

    Raises:
        RuntimeError: they could not be fetched.
    """
    return cached(f"npm-{hashlib.sha256((_WANTED / 'package-lock.json').read_bytes()).hexdigest()[:16]}", _fetch)


def _fetch(folder: Path) -> None:
    for file in _FILES:
        shutil.copy(_WANTED / file, folder)
    command = [node(), npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    for _ in range(_ATTEMPTS):
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
        if run.returncode == 0:
            return
    raise RuntimeError(f"packages of npm could not be fetched: npm ci ended with {run.returncode}")
