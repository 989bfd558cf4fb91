"""Which promises the documents make, and which tests hold them: `python -m tests.core.promises` lists those that none does."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/protocol.md", "docs/operations.md", "docs/access.md")
_ANCHOR = re.compile(r'<a id="(p-[^"]*)"></a>')
_NAME = re.compile(r"p-[a-z0-9]+(-[a-z0-9]+)*")
_SHOWN = 90  # characters of a promise


class Promise(NamedTuple):
    """An anchor in a document, and how the sentence behind it begins."""

    name: str
    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.name}: {self.text}"


def promises_in(text: str, document: str) -> list[Promise]:
    """Return the promises of a document, in their order."""
    return [
        Promise(anchor[1], document, number, _ANCHOR.sub("", line[anchor.end() :])[:_SHOWN])
        for number, line in enumerate(text.splitlines(), 1)
        for anchor in _ANCHOR.finditer(line)
    ]


def promises() -> list[Promise]:
    """Return the promises of all documents."""
    return [promise for document in DOCUMENTS for promise in promises_in((ROOT / document).read_text(), document)]


def named_in(source: str) -> set[str]:
    """Return the promises that tests of a module name, by `@pytest.mark.promise("p-…", …)`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    marks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "promise"]
    return {argument.value for mark in marks for argument in mark.args if isinstance(argument, ast.Constant)}


def held_by_tests() -> dict[str, set[str]]:
    """Return a promise -> the files that have tests for it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in named_in(path.read_text()):
            found[name].add(str(path.relative_to(ROOT)))
    return dict(found)


def problems(made: list[Promise], held: dict[str, set[str]]) -> list[str]:
    """Return what is wrong, a sentence each: promises that no test holds, names that are none or taken."""
    times = Counter(promise.name for promise in made)
    wrong = [
        f"{promise} (a name is made of p- and small letters, digits and hyphens)" for promise in made if not _NAME.fullmatch(promise.name)
    ]
    wrong += [f"{promise} (there are {times[promise.name]} of this name)" for promise in made if times[promise.name] > 1]
    return wrong + [f"{promise} (no test holds it)" for promise in made if promise.name not in held]


def withdrawn(made: list[Promise], held: dict[str, set[str]]) -> list[str]:
    """Return the promises that tests name and no document makes, a sentence each."""
    names = held.keys() - {promise.name for promise in made}
    return [f"{', '.join(sorted(held[name]))}: {name} (no document makes this promise)" for name in sorted(names)]


def main() -> int:
    """Print what is wrong, and return the exit code."""
    made, held = promises(), held_by_tests()
    found = problems(made, held) + withdrawn(made, held)
    for problem in found:
        sys.stdout.write(problem + "\n")
    sys.stdout.write(f"{len(made)} promises, {len(found)} problems\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
