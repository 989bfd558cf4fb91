"""Runs kafka_chat beside a task that wakes every millisecond: `python -m bench.ticking BOOTSTRAP PORT FILE`.

Twice a second it writes a line of JSON to the file: how late the task woke at most, in milliseconds of wall-clock time
(`wall`, which other processes on the machine affect, too), and the most CPU that its thread spent meanwhile (`cpu`: what
the loop did without yielding).
"""

from __future__ import annotations

import json
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TextIO

import trio

from kafka_chat.application import create
from kafka_chat.process.gc_tuning import collect_seldom
from kafka_chat.settings.model import KafkaSettings, ServerSettings, Settings
from kafka_chat.web.server.serve import serve

TICK_SECONDS = 0.001
LINE_SECONDS = 0.5


async def tick(lines: TextIO) -> None:
    """Note how late each tick is, until cancelled."""
    begun, wall, cpu = time.monotonic(), 0.0, 0.0
    while True:
        before, spent = time.monotonic(), time.thread_time()
        await trio.sleep(TICK_SECONDS)
        now = time.monotonic()
        wall = max(wall, now - before - TICK_SECONDS)
        cpu = max(cpu, time.thread_time() - spent)
        if now - begun >= LINE_SECONDS:
            lines.write(json.dumps({"from": begun, "until": now, "wall": wall * 1000, "cpu": cpu * 1000}) + "\n")
            lines.flush()
            begun, wall, cpu = now, 0.0, 0.0


async def main(bootstrap: str, port: int, path: Path) -> None:
    """Serve until SIGTERM."""
    settings = Settings(server=ServerSettings(port=port), kafka=KafkaSettings(bootstrap_servers=bootstrap))
    app = create(settings)
    collect_seldom()
    ended = trio.Event()
    with path.open("a") as lines, trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, app, settings, shutdown_trigger=ended.wait))
            nursery.start_soon(tick, lines)
            async for _ in signals:
                break
            ended.set()
            nursery.cancel_scope.deadline = trio.current_time() + settings.server.drain_seconds + 1


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
