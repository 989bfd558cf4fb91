"""Brokers that may be stopped, for tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.brokers import KafkaCluster, kafka_cluster


@pytest.fixture(scope="package")
def _hanging() -> Iterator[KafkaCluster]:
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture
def hanging(_hanging: KafkaCluster) -> Iterator[KafkaCluster]:
    """One real broker, to be killed and frozen; it runs again for the next test."""
    yield _hanging
    _hanging.mend()


@pytest.fixture(scope="package")
def _three_brokers() -> Iterator[KafkaCluster]:
    with kafka_cluster(nodes=3, heap_mb=256) as cluster:
        yield cluster


@pytest.fixture
def three_brokers(_three_brokers: KafkaCluster) -> Iterator[KafkaCluster]:
    """Three real brokers, to be killed and frozen; they run again for the next test."""
    yield _three_brokers
    _three_brokers.mend()
