"""Whatever happens to clients, instances, topics and subscriptions, in any order: no client loses or doubles a message."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.prove.scale import SEED, scaled, tell
from tests.prove.world import INSTANCES, Client, World, only_a, world
from tests.support.brokers import EmbeddedBroker, KafkaCluster
from tests.support.chats import Chats
from tests.support.checker import everything
from tests.support.resuming_visit import Cut

USERS = ["ann", "ann", "bob"]
ROOMS = ["red", "blue"]
STEPS = 25

clients = st.integers(0, len(USERS) - 1)
rooms = st.integers(0, len(ROOMS) - 1)
partitions = st.integers(0, 3)
instances = st.integers(0, INSTANCES - 1)
ways = st.one_of(st.none(), instances)  # by an op, or at an instance


class Histories(RuleBasedStateMachine):
    """What may happen on any broker."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.rooms: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.clients, self.rooms = self.world.new_example(USERS, ROOMS)
        for client in self.clients:
            self.world.connect(client, 0)

    @rule(room=rooms, partition=partitions, count=st.integers(1, 5), tag=st.sampled_from([None, "a", "b"]))
    def produce(self, room: int, partition: int, count: int, tag: str | None) -> None:
        self._made(room)
        self.world.produce(self.rooms[room], partition, count, tag=tag)

    @rule(room=rooms, partition=partitions)
    def produce_more_than_fits(self, room: int, partition: int) -> None:
        self._made(room)
        self.world.produce(self.rooms[room], partition, 300, large=True)

    @rule(client=clients, room=rooms, way=ways)
    def subscribe(self, client: int, room: int, way: int | None) -> None:
        one = self.clients[client]
        self.world.subscribe(one, self.rooms[room], instance=self._way(one, way))

    @rule(client=clients, room=rooms, way=ways)
    def unsubscribe(self, client: int, room: int, way: int | None) -> None:
        one = self.clients[client]
        self.world.unsubscribe(one, self.rooms[room], instance=self._way(one, way))

    @rule(client=clients, how=st.sampled_from(list(Cut)))
    def cut(self, client: int, how: Cut) -> None:
        if self.clients[client].connected:
            self.world.cut(self.clients[client], how)

    @rule(client=clients, instance=instances, in_frame=st.booleans())
    def resume(self, client: int, instance: int, in_frame: bool) -> None:  # noqa: FBT001 - rules are called by name
        if not self.clients[client].connected:
            self.world.connect(self.clients[client], instance, in_frame=in_frame)

    @rule(client=clients, instance=instances)
    def filter_on_or_off(self, client: int, instance: int) -> None:
        one = self.clients[client]
        if one.connected:
            self.world.cut(one, Cut.FIN)
        one.passes = everything if one.passes is only_a else only_a
        self.world.connect(one, instance)

    @rule(client=clients)
    def slow_down(self, client: int) -> None:
        if self.clients[client].connected:
            self.world.slow_down(self.clients[client])

    @rule(client=clients)
    def read_on(self, client: int) -> None:
        self.world.read_on(self.clients[client])

    @rule(instance=instances)
    def restart(self, instance: int) -> None:
        self.world.restart(instance)

    @invariant()
    def nobody_loses_or_doubles_anything(self) -> None:
        if self.clients:
            self.world.settle()

    def teardown(self) -> None:
        if self.clients:
            self.world.end_example()

    def _made(self, room: int) -> None:
        if not self.world.exists(self.rooms[room]):
            self.world.create(self.rooms[room], 1)

    def _way(self, client: Client, way: int | None) -> int | None:
        return 0 if way is None and (not client.connected or client.slow) else way


class HistoriesOfKafka(Histories):
    """What may happen on real Kafka besides."""

    @precondition(lambda self: self._topics)
    @rule(room=rooms, partition=partitions, share=st.floats(0, 1))
    def trim(self, room: int, partition: int, share: float) -> None:
        if self.world.exists(self.rooms[room]):
            self.world.trim(self.rooms[room], partition, share)

    @precondition(lambda self: self._topics)
    @rule(room=rooms)
    def add_a_partition(self, room: int) -> None:
        chat = self.rooms[room]
        if self.world.exists(chat) and self.world.partitions(chat) < 4:
            self.world.add_partition(chat)

    @precondition(lambda self: self._topics and not self.world.transaction_is_open)
    @rule(room=rooms, count=st.integers(1, 2))
    def recreate(self, room: int, count: int) -> None:
        if self.world.exists(self.rooms[room]):
            self.world.recreate(self.rooms[room], count)

    @rule(room=rooms, partition=partitions, count=st.integers(1, 3))
    def produce_in_a_transaction(self, room: int, partition: int, count: int) -> None:
        self._made(room)
        self.world.in_transaction(self.rooms[room], partition, count)

    @precondition(lambda self: self.world.transaction_is_open)
    @rule(commit=st.booleans())
    def end_the_transaction(self, commit: bool) -> None:  # noqa: FBT001 - rules are called by name
        self.world.end_transaction(commit=commit)

    @property
    def _topics(self) -> bool:
        return any(map(self.world.exists, self.rooms))


def run(machine: type[Histories], made: World, *, examples: int, phases: tuple[Any, ...]) -> None:
    """Try this many histories."""
    in_world = type(machine.__name__, (machine,), {"world": made})
    run_state_machine_as_test(
        seed(SEED)(in_world),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )
    tell(machine.__name__, examples=examples, **made.happened)
    assert all(made.happened[what] for what in ("produce", "subscribe", "unsubscribe", "connect", "cut", "slow_down", "restart"))


def test_any_history_on_the_embedded_broker(embedded: EmbeddedBroker, chats: Chats):
    with world(embedded, chats) as made:
        run(Histories, made, examples=scaled(100), phases=(Phase.generate, Phase.shrink))


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_any_history_on_kafka(kafka: KafkaCluster, chats: Chats):
    with world(kafka, chats) as made:
        run(HistoriesOfKafka, made, examples=scaled(200), phases=(Phase.generate,))
