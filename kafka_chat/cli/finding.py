"""The result of one check."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check has found.

    Attributes:
        subject: what was checked: `settings`, `files`, `keys`, `brokers`, `topics`, `subscriptions`.
        ok: whether it is right.
        sentence: the result, and what to do.
    """

    subject: str
    ok: bool
    sentence: str


def well(subject: str, sentence: str) -> Finding:
    """Return a finding of something that is right."""
    return Finding(subject=subject, ok=True, sentence=sentence)


def wrong(subject: str, sentence: str) -> Finding:
    """Return a finding of something that has to be changed."""
    return Finding(subject=subject, ok=False, sentence=sentence)
