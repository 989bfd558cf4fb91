"""What the tasks of this trio run are, and where each of them waits."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


def task_tree() -> str:
    """Return the tasks of the run, children under parents, each with the last lines of its stack."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_shown(root, "")) if root is not None else ""


def tasks() -> list[str]:
    """Return the names of all tasks of the run, sorted: what there is more of afterwards has leaked."""
    root = trio.lowlevel.current_root_task()
    return sorted(task.name for task in _all(root)) if root is not None else []


def _all(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _all(child)


def _shown(task: trio.lowlevel.Task, indent: str) -> Iterator[str]:
    yield f"{indent}{task.name}"
    frames = task.iter_await_frames() if isinstance(cast("object", task.coro), Coroutine) else ()
    places = [f"{indent}    {frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in frames]
    yield from [entry for entry in places if f"{os.sep}trio{os.sep}_core{os.sep}" not in entry][-6:]
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _shown(child, indent + "  ")
