"""How followed partitions are spread over Consumers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.kafka.poller import Assignment
from kafka_chat.kafka.poller_pool import PARTITIONS_EACH, Pollers


class FakePoller:
    """Records its calls; its thread is a task."""

    def __init__(self) -> None:
        self.wanted: dict[tuple[str, int], Assignment] = {}
        self.running = False
        self.rounds = 0

    @property
    def followed(self) -> int:
        return len(self.wanted)

    def assign(self, assignment: Assignment) -> None:
        self.wanted[assignment.partition_name] = assignment

    def unassign(self, assignment: Assignment) -> None:
        if self.wants(assignment):
            del self.wanted[assignment.partition_name]

    def wants(self, assignment: Assignment) -> bool:
        return self.wanted.get(assignment.partition_name) is assignment

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        self.running = True
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.running = False


class Made:
    def __init__(self, most: int) -> None:
        self.all: list[FakePoller] = []
        self.pollers = Pollers(self._make, most=most)

    def _make(self) -> FakePoller:
        self.all.append(FakePoller())
        return self.all[-1]


def assignment(topic: str, partition: int = 0, start: int = 0) -> Assignment:
    return Assignment(PartitionKey(topic, "id", partition), topic, start)


@pytest.mark.promise("p-consumers")
def test_one_consumer_is_enough_for_so_many_partitions_and_then_another_is_begun():
    made = Made(most=3)
    for number in range(PARTITIONS_EACH):
        made.pollers.assign(assignment(f"t{number}"))
    assert len(made.all) == 1
    made.pollers.assign(assignment("one more"))
    assert [poller.followed for poller in made.all] == [PARTITIONS_EACH, 1]


def test_there_are_never_more_consumers_than_allowed_and_they_share_evenly():
    made = Made(most=3)
    for number in range(6 * PARTITIONS_EACH):
        made.pollers.assign(assignment(f"t{number}"))
    assert [poller.followed for poller in made.all] == [2 * PARTITIONS_EACH] * 3


def test_a_topic_stays_where_it_is_while_any_of_it_is_followed():
    made = Made(most=2)
    first, second = assignment("t", 0), assignment("t", 1)
    made.pollers.assign(first)
    for number in range(PARTITIONS_EACH + 5):
        made.pollers.assign(assignment(f"t{number}"))
    made.pollers.assign(second)
    again = assignment("t", 0, start=7)
    made.pollers.assign(again)
    assert made.all[0].wants(second)
    assert made.all[0].wants(again)
    assert not made.pollers.wants(first)


def test_what_is_no_longer_wanted_is_forgotten_and_its_place_is_free():
    made = Made(most=2)
    old = assignment("t")
    made.pollers.assign(old)
    made.pollers.unassign(old)
    made.pollers.unassign(old)
    assert not made.pollers.wants(old)
    for number in range(PARTITIONS_EACH):
        made.pollers.assign(assignment(f"t{number}"))
    made.pollers.assign(assignment("t"))
    assert [poller.followed for poller in made.all] == [PARTITIONS_EACH, 1]


async def test_further_consumers_run_once_they_are_needed_and_end_with_the_rest(autojump_clock):
    made = Made(most=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.pollers.run)
        assert [poller.running for poller in made.all] == [True]
        for number in range(PARTITIONS_EACH + 1):
            made.pollers.assign(assignment(f"t{number}"))
        await wait_all_tasks_blocked()
        assert [poller.running for poller in made.all] == [True, True]
        made.all[0].rounds = 5
        assert made.pollers.rounds == 0, "the one that is stuck is the one that counts"
        nursery.cancel_scope.cancel()
    assert [poller.running for poller in made.all] == [False, False]
