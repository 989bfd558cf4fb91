"""Reports records to the operator that clients get incomplete or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..chat.partition_key import PartitionKey
    from ..delivery.records.batch import Batch
    from ..telemetry.metrics import Telemetry


def tell_not_shown(telemetry: Telemetry, key: PartitionKey, batches: Iterable[Batch]) -> None:
    """Report each record once; the batches then forget them.

    Args:
        telemetry: receives the reports.
        key: the partition of the batches.
        batches: the batches just read.
    """
    for batch in batches:
        for rejected in batch.rejected:
            telemetry.record_rejected(topic=key.topic, partition=key.partition, offset=rejected.offset, reason=rejected.reason)
        for offset, parts in batch.shortened:
            for what in parts:
                telemetry.record_shortened(topic=key.topic, partition=key.partition, offset=offset, what=what)
        batch.forget_rejected()
