"""How much of each proof is run: all of it with PROVE=1, which is `make prove`; otherwise a tenth. PROVE_SEED seeds it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence

FULL = os.environ.get("PROVE") == "1"
SEED = int(os.environ.get("PROVE_SEED", "1"))


def scaled(full: int, least: int = 1) -> int:
    """Return all of `full`, or a tenth, but at least `least`."""
    return full if FULL else max(least, full // 10)


def dice(what: str) -> random.Random:
    """Return random numbers that are the same in each run with the same seed."""
    return random.Random(f"{SEED} {what}")


def percentile(values: Sequence[float], share: float) -> float:
    """Return what a share of the values is not above; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def tell(what: str, **figures: object) -> None:
    """Print figures; `make prove` shows them."""
    shown = "  ".join(
        f"{name.replace('_', ' ')} {value:.3f}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in figures.items()
    )
    sys.stdout.write(f"\n{what}: {shown}\n")
