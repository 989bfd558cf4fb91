"""Parses the header `Prefer` (RFC 7240)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A name, with or without a value, and a separator: a comma before another preference, a semicolon before a parameter. Clients also
# write `respond-async; wait=10`, so the two are treated alike.
_PREFERENCE = re.compile(
    r"""[\s,;]*
        (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
        (?:\s*=\s*(?:(?P<token>[!#$%&'*+.^_`|~0-9A-Za-z-]+)|"(?P<quoted>(?:[^"\\]|\\.)*)"))?
        \s*(?:[,;]|$)""",
    re.VERBOSE | re.ASCII,
)


def preference(lines: Iterable[str], name: str) -> str | None:
    """Return the first value of a preference; None if there is none.

    A malformed preference is ignored, with the rest of its line.

    Args:
        lines: the lines of the header.
        name: the preference, in lower case.
    """
    for line in lines:
        at = 0
        while (found := _PREFERENCE.match(line, at)) is not None:
            at = found.end()
            if found["name"].lower() == name:
                return found["token"] if found["quoted"] is None else re.sub(r"\\(.)", r"\1", found["quoted"])
    return None
