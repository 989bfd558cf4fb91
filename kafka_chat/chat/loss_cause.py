"""Why messages that were due are gone."""

from __future__ import annotations

import enum


class LossCause(enum.StrEnum):
    """Why a position can't be read any more; the value is the metric's label and the notice's cause."""

    RETENTION = "retention"
    RECREATED = "recreated"
    TRUNCATED = "truncated"
