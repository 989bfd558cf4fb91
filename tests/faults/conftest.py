"""A broker that may be stopped, for tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.brokers import KafkaCluster, kafka_cluster


@pytest.fixture(scope="package")
def hanging() -> Iterator[KafkaCluster]:
    """One real broker, to be killed and frozen; each test leaves it running."""
    with kafka_cluster() as cluster:
        yield cluster
