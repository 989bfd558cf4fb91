"""tests/support/README.md says which helper to use for what, of all that there are, and none of their files is long."""

from __future__ import annotations

import re
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"
PAGE = (SUPPORT / "README.md").read_text()
ROWS = re.findall(r"^\| (?!you need|it has to|---)(.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
FIXTURES = "".join((SUPPORT.parent / path).read_text() for path in ("conftest.py", "faults/conftest.py"))
MOST_LINES = 400


def test_each_module_is_on_the_page():
    assert {path.name for path in SUPPORT.glob("*.py")} == set(re.findall(r"`(\w+\.py)`", PAGE))


def test_each_helper_on_the_page_is_where_the_page_says():
    assert len(ROWS) > 30
    for _, helpers, files in ROWS:
        there = FIXTURES + "".join((SUPPORT / name).read_text() for name in re.findall(r"`(\w+\.py)`", files))
        named = re.findall(r"`(?:async with |trio\.fail_after\()?(\w+)(?![\w/ ])", helpers)
        assert named, helpers
        for name in named:
            assert re.search(rf"(?m)\b(?:def|class) {name}\b|^{name}\b", there), (name, files)


def test_no_helper_s_file_is_long():
    long = {path.name: count for path in SUPPORT.glob("*.py") if (count := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_what_is_apart_from_the_service_on_purpose_imports_nothing_of_it():
    apart = [path for path in SUPPORT.glob("*.py") if re.search(r"(?i)deliberately|shares no code", path.read_text().splitlines()[0])]
    assert len(apart) >= 8
    seen = set(apart)
    while apart:
        source = apart.pop().read_text()
        assert not re.search(r"^\s*(from|import) kafka_chat", source, re.MULTILINE)
        imported = {SUPPORT / f"{name}.py" for name in re.findall(r"^from \.(\w+) import", source, re.MULTILINE)}
        apart += imported - seen
        seen |= imported
