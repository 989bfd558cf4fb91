"""A session that is cancelled, at any checkpoint, leaves nothing."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.delivery.session.live_socket import Close
from tests.support.fake_topics import value
from tests.support.fakes import FakeClient, open_core

GLOBAL = "kafka.chat.global"


class CancelAt(trio.abc.Instrument):
    """Cancels a scope the n-th time that one of its tasks is about to go on."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is not None and _inside(task, self.task):
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


def _inside(task: trio.lowlevel.Task | None, root: trio.lowlevel.Task) -> bool:
    while task is not None:
        if task is root:
            return True
        task = task.parent_nursery.parent_task if task.parent_nursery else None
    return False


@pytest.mark.parametrize("ending", ["leaves", "ended", "aborted", "stays"])
async def test_a_session_cancelled_at_any_checkpoint_leaves_nothing(autojump_clock, ending):
    steps = 0
    completed = False
    while not completed:
        steps += 1
        completed = await _scenario(CancelAt(steps), ending)
    assert steps > 10, "the scenario has hardly a checkpoint: it proves nothing"


async def _scenario(cancel: CancelAt, ending: str) -> bool:
    """Connect, fall behind, read pages, catch up, end; return whether it came to its end uncancelled."""
    async with open_core(memory_bytes=65_536) as core:
        core.kafka.create(GLOBAL)
        before = trio.lowlevel.current_statistics().tasks_living
        client, session = FakeClient(room=100), core.session()

        async def live() -> None:
            cancel.task = trio.lowlevel.current_task()
            trio.lowlevel.add_instrument(cancel)
            try:
                with cancel.scope, core.audience.joined(session, known=True):
                    await core.audience.wait_started(session, seconds=2)
                    await session.run(client, client)
            finally:
                trio.lowlevel.remove_instrument(cancel)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live)
                await wait_all_tasks_blocked()
                for n in range(40):
                    core.kafka.produce(GLOBAL, *[value(f"m{n}-{m} {'x' * 50}") for m in range(20)])
                    client.make_room(500 * (n % 3))
                    await wait_all_tasks_blocked()
                client.make_room(float("inf"))
                await wait_all_tasks_blocked()
                if ending == "leaves":
                    client.leave()
                elif ending == "ended":
                    session.end(Close(code=1012, reason="restart"))
                elif ending == "aborted":
                    session.abort()
                await wait_all_tasks_blocked()
                stays = not cancel.scope.cancel_called
                nursery.cancel_scope.cancel()
        assert (core.audience.sessions, core.audience.partitions, core.kafka.requested) == (0, 0, set())
        assert core.memory.owed_bytes == 0
        assert core.memory.held_bytes == 0
        assert trio.lowlevel.current_statistics().tasks_living == before
        return stays
