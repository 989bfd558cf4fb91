"""Unclean elections on a real cluster: a leader is lost with records that its follower never had, and the follower leads."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import trio
from confluent_kafka import KafkaException, Producer

from .broker_client import produce_records
from .brokers import KafkaCluster
from .deadlines import HANG_SECONDS

PAUSE_SECONDS = 0.1


def create_topic(
    cluster: KafkaCluster, name: str, leader: int, follower: int, *, partitions: int = 1, cleanup_policy: str = "delete"
) -> None:
    """Create a topic with two replicas whose follower may be elected although it lacks acknowledged records."""
    cluster.create_topic(
        name,
        partitions,
        nodes=(leader, follower),
        min_insync_replicas=1,
        unclean_leader_election_enable="true",
        cleanup_policy=cleanup_policy,
    )


class Writer:
    """A producer that is not idempotent: an idempotent one fails for good when an unclean election breaks its sequence."""

    def __init__(self, cluster: KafkaCluster) -> None:
        config: dict[str, str | int | bool] = {"linger.ms": 0, "enable.idempotence": False, "topic.metadata.refresh.interval.ms": 500}
        self._producer = Producer({**cluster.client("writer"), **config})

    async def write(self, topic: str, values: Sequence[bytes], *, partition: int = 0) -> None:
        """Write records, and return once all are acknowledged."""

        def write() -> None:
            produce_records(self._producer, topic, values, key=None, partition=partition)

        await trio.to_thread.run_sync(write)


async def elect(cluster: KafkaCluster, topics: Collection[str], leader: int, follower: int) -> None:
    """Kill the leader, start the follower, which was killed before, and return once it leads all partitions of these topics."""
    await trio.to_thread.run_sync(cluster.kill, leader)
    await trio.to_thread.run_sync(lambda: cluster.start(follower, wait=False))
    with trio.fail_after(2 * HANG_SECONDS):
        while not await trio.to_thread.run_sync(_leads, cluster, topics, follower):  # noqa: ASYNC110 - a broker tells nobody
            await trio.sleep(PAUSE_SECONDS)


def _leads(cluster: KafkaCluster, topics: Collection[str], node: int) -> bool:
    try:
        return all(leader == node for topic in topics for leader in cluster.leaders(topic).values())
    except (KafkaException, KeyError):  # they are about to know it
        return False
