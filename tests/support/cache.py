"""A folder that outlives test runs, with what they fetch: `$KAFKA_CHAT_CACHE`, else `~/.cache/kafka_chat`."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which is fetched now if it is not there.

    Safe to call from several processes at once: one fetches, the others wait. What is in the cache is complete, for it is made beside
    it and then renamed.

    Args:
        name: of the folder.
        fetch: fills an empty folder, and may use the folder around it for what it needs meanwhile.
    """
    cache = Path(os.environ.get("KAFKA_CHAT_CACHE") or Path.home() / ".cache" / "kafka_chat")
    found = cache / name
    if not found.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it however this process ends
            if not found.is_dir():
                with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as workshop:
                    folder = Path(workshop) / "fetched"
                    folder.mkdir()
                    fetch(folder)
                    folder.rename(found)
    return found
