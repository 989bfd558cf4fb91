"""Combines the metrics of several processes into one answer, each series with a label for its process.

They are not added up: the counter of a restarted worker begins at 0, which Prometheus handles for a series but not for
a sum. `sum without (worker) (rate(…))` is always right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LABEL = "worker"


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value of a family."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """The samples below one `# HELP` and `# TYPE`."""

    name: str
    meaning: str
    kind: str
    samples: list[Sample]


def families(registry: CollectorRegistry) -> list[Family]:
    """Return the current values of all families in a registry."""
    return [
        Family(found.name, found.documentation, found.type, [Sample(one.name, one.labels, one.value) for one in found.samples])
        for found in registry.collect()
    ]


def exposition(parts: Mapping[str, Sequence[Family]]) -> bytes:
    """Return all families of all processes in Prometheus' text format.

    Args:
        parts: value of the label `worker` -> that process's families.
    """
    return generate_latest(cast("CollectorRegistry", _Together(parts)))


class _Together:
    """The part of a registry that the text format needs."""

    def __init__(self, parts: Mapping[str, Sequence[Family]]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        together: dict[str, Metric] = {}
        for process, found in self._parts.items():
            for family in found:
                metric = together.setdefault(family.name, Metric(family.name, family.meaning, family.kind))
                for sample in family.samples:
                    metric.add_sample(sample.name, {**sample.labels, LABEL: process}, sample.value)
        yield from together.values()
