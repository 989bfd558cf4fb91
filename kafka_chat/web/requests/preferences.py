"""What a client prefers, by its header `Prefer` (RFC 7240)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A name, with or without a value, and what separates it from the next one: a comma before another preference, a semicolon before a
# parameter. Clients write `respond-async; wait=10`, too, so the two count alike.
_PREFERENCE = re.compile(
    r"""[\s,;]*
        (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
        (?:\s*=\s*(?:(?P<token>[!#$%&'*+.^_`|~0-9A-Za-z-]+)|"(?P<quoted>(?:[^"\\]|\\.)*)"))?
        \s*(?:[,;]|$)""",
    re.VERBOSE | re.ASCII,
)


def preference(lines: Iterable[str], name: str) -> str | None:
    """Return the value of a preference, its first one; None where there is none, or none with a value.

    What is malformed is ignored, with all that is behind it in its line.

    Args:
        lines: of the header.
        name: in lower case.
    """
    for line in lines:
        at = 0
        while (found := _PREFERENCE.match(line, at)) is not None:
            at = found.end()
            if found["name"].lower() == name:
                return found["token"] if found["quoted"] is None else re.sub(r"\\(.)", r"\1", found["quoted"])
    return None
