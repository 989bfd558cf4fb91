"""Measures how long the steps of tasks block the loop, in units that do not depend on other work of the machine.

A step is what a task does between two checkpoints; nothing else runs meanwhile. Its cost is CPU time of the loop's thread, so what
other processes take of the machine is not in it, and it is told in milliseconds of the machine that the bound is for: a fixed
piece of pure Python, run next to each long step, says how fast the processor is just then.
"""

from __future__ import annotations

import gc
import heapq
from contextlib import contextmanager
from time import thread_time
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_MS = 10.0  # nothing blocks the loop for longer
LONGEST_KEPT = 10
UNIT_ROUNDS = 24_000  # of the calibrated piece: 1 ms of CPU on the machine that the bound of 10 ms was written for
NOTED_SECONDS = 0.001  # a shorter step is not worth a calibration


class Step(NamedTuple):
    """One step of a task.

    Attributes:
        ms: its cost, in calibrated milliseconds.
        task: the task's name.
    """

    ms: float
    task: str


class LoopSteps(trio.abc.Instrument):
    """Notes the longest steps of all tasks of a run.

    A collection of the oldest generation is not counted: what it walks over is the test run's. It is in `collections_ms`.

    Attributes:
        steps: how many there were.
        collections_ms: what full collections took, in calibrated milliseconds, one each.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.collections_ms: list[float] = []
        self._longest: list[tuple[float, int, str]] = []
        self._unit = min(_unit_seconds() for _ in range(3))
        self._began = thread_time()
        self._collected = 0.0  # seconds of full collections in this step
        self._collecting = 0.0

    @property
    def longest(self) -> list[Step]:
        """The longest steps, the longest first."""
        return [Step(ms, task) for ms, _, task in sorted(self._longest, reverse=True)]

    def longest_of(self, *names: str) -> list[Step]:
        """The longest steps of tasks whose name has one of these in it."""
        return [step for step in self.longest if any(name in step.task for name in names)]

    def check(self, *, most_ms: float = MOST_MS, ignore: tuple[str, ...] = ()) -> None:
        """No step was longer than `most_ms`.

        Args:
            most_ms: the bound, in calibrated milliseconds.
            ignore: tasks with one of these in their name are the test's own.
        """
        assert self.steps, "no task took a step: nothing was measured"
        long = [step for step in self.longest if step.ms > most_ms and not any(name in step.task for name in ignore)]
        shown = "; ".join(f"{step.task} {step.ms:.1f} ms" for step in long)
        assert not long, f"the loop was held for over {most_ms:g} ms: {shown}"

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._collected = 0.0
        self._began = thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = thread_time() - self._began - self._collected
        self.steps += 1
        if seconds < NOTED_SECONDS:
            return
        if len(self._longest) == LONGEST_KEPT and seconds < self._longest[0][0] * self._unit:
            return
        # The processor may be slower now than it was at the beginning: another one shares its caches.
        noted = (seconds / max(self._unit, _unit_seconds()), self.steps, task.name)
        (heapq.heappush if len(self._longest) < LONGEST_KEPT else heapq.heappushpop)(self._longest, noted)

    def collection(self, phase: str, info: dict[str, int]) -> None:
        """Called by the garbage collector."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._collecting = thread_time()
            return
        seconds = thread_time() - self._collecting
        self._collected += seconds
        self.collections_ms.append(seconds / self._unit)


@contextmanager
def loop_steps() -> Iterator[LoopSteps]:
    """Measure the steps of this trio run while the block runs; call it in the run."""
    steps = LoopSteps()
    trio.lowlevel.add_instrument(steps)
    gc.callbacks.append(steps.collection)
    try:
        yield steps
    finally:
        gc.callbacks.remove(steps.collection)
        trio.lowlevel.remove_instrument(steps)


class LoopRounds(trio.abc.Instrument):
    """Counts the steps of tasks in each round of the loop: every task that can go on has one, and a new round begins after all of them.

    What a task waits for in a round is all the others, so a bound on each step alone does not bound how long it waits.

    Attributes:
        most_steps: in one round, so far.
        longest_ms: CPU time of the longest round, in milliseconds of this machine as it was at the beginning.
    """

    def __init__(self) -> None:
        self.most_steps = 0
        self.longest_ms = 0.0
        self._steps = 0
        self._unit = min(_unit_seconds() for _ in range(3))
        self._began = thread_time()

    def after_io_wait(self, timeout: float) -> None:
        self._began = thread_time()

    def before_io_wait(self, timeout: float) -> None:
        self.most_steps = max(self.most_steps, self._steps)
        self.longest_ms = max(self.longest_ms, (thread_time() - self._began) / self._unit)
        self._steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1


@contextmanager
def loop_rounds() -> Iterator[LoopRounds]:
    """Count the steps of this trio run's rounds while the block runs; call it in the run."""
    rounds = LoopRounds()
    trio.lowlevel.add_instrument(rounds)
    try:
        yield rounds
    finally:
        trio.lowlevel.remove_instrument(rounds)


def _unit_seconds() -> float:
    """Run the calibrated piece; return how much CPU it took, in seconds."""
    began = thread_time()
    kept: dict[int, int] = {}
    for number in range(UNIT_ROUNDS):
        kept[number & 255] = number + len(kept)
    return thread_time() - began
