"""What the documents say of the code is so."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from kafka_chat.events import EVENTS, GAUGES
from kafka_chat.settings_sources import keys
from kafka_chat.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_operators_can_look_up_every_event(event):
    metric = f"`{event.metric}`" if event.metric else ""
    assert f"| `{event.name}` | {logging.getLevelName(event.level).lower()} | {metric} | {event.meaning} |\n" in OPERATIONS


@pytest.mark.parametrize("gauge", GAUGES)
def test_operators_can_look_up_every_gauge(gauge):
    assert f"| `kafka_chat_{gauge}` | {GAUGES[gauge]} |\n" in OPERATIONS


def test_every_metric_that_the_documents_name_exists():
    shown = Telemetry().metrics()
    text = shown if isinstance(shown, str) else shown.decode()
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")} | {f"kafka_chat_{gauge}" for gauge in GAUGES}
    known |= {event.metric for event in EVENTS if event.metric}
    named = set(re.findall(r"kafka_chat_[a-z_]+(?=[`{])", OPERATIONS))
    assert named <= known


@pytest.mark.parametrize("key", keys())
def test_a_newcomer_finds_every_setting(key):
    assert f"| `{key}` |" in README


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9.-]+==[^ \\]+", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", ["requirements-runtime.lock", "requirements-build.lock"])
def test_what_the_image_is_made_of_is_a_part_of_what_is_tested(lock):
    assert pins(lock)
    assert pins(lock) <= pins("requirements.lock")


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("*.lock")))
def test_a_lock_names_no_host(lock):
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "bench/README.md"], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target
