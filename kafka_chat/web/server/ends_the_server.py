"""The one error of the app's lifespan that ends the server; after any other the server goes on without a service."""

from __future__ import annotations

from hypercorn.utils import LifespanFailureError


def ends_the_server(stage: str, reason: str) -> Exception:
    """Return what the lifespan has to raise.

    Args:
        stage: of its life.
        reason: a sentence.
    """
    return LifespanFailureError(stage, reason)
