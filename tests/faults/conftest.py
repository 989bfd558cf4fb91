"""A broker that may be stopped, for tests of this folder."""

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
    if _hanging.running:
        _hanging.thaw()
    else:
        _hanging.start()
