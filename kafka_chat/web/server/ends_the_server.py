"""The only error of the app's lifespan that ends the server; after any other it goes on without a service."""

from __future__ import annotations

from hypercorn.utils import LifespanFailureError


def ends_the_server(stage: str, reason: str) -> Exception:
    """Return the exception for the lifespan to raise.

    Args:
        stage: the stage of the lifespan that failed.
        reason: a sentence.
    """
    return LifespanFailureError(stage, reason)
