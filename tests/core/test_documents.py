"""What the documents say about the code is true."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from kafka_chat.settings.keys import keys
from kafka_chat.settings.sources import variable
from kafka_chat.telemetry.events import EVENTS, GAUGES, Event
from kafka_chat.telemetry.metrics import Telemetry, WorkersTelemetry

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
README = (ROOT / "README.md").read_text()


def rows(document: str, heading: str) -> list[str]:
    """The rows of the table below a heading, its own head not among them."""
    section = re.split(r"^#+ ", document.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


@pytest.mark.promise("p-metrics-list")
def test_operators_can_look_up_every_event_and_no_other():
    def row(event: Event) -> str:
        metric = f"`{event.metric}`" if event.metric else ""
        return f"| `{event.name}` | {logging.getLevelName(event.level).lower()} | {metric} | {event.meaning} |"

    assert rows(OPERATIONS, "Events") == [row(event) for event in EVENTS]


def every_metric() -> dict[str, tuple[str, str]]:
    """Name, as Prometheus shows it -> kind and meaning."""
    found = {f"kafka_chat_{name}": ("gauge", meaning) for name, meaning in GAUGES.items()}
    for family in [*Telemetry().families(), *WorkersTelemetry().families()]:
        if family.name.startswith("kafka_chat_"):
            found[family.name + ("_total" if family.kind == "counter" else "")] = (family.kind, family.meaning)
    return found


@pytest.mark.promise("p-metrics-list")
def test_operators_can_look_up_every_metric_and_no_other():
    assert rows(OPERATIONS, "Metrics") == [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in sorted(every_metric().items())]


@pytest.mark.promise("p-metrics-list")
def test_metrics_have_no_series_that_operators_cannot_look_up():
    telemetry = Telemetry()
    telemetry.session_opened(session_id="s1", username="ann", peer="[::1]:1")
    series = set(re.findall(r"(?m)^(kafka_chat_\w+)", telemetry.metrics().decode()))
    assert series
    assert series <= every_metric().keys()


def test_every_metric_that_the_documents_name_exists():
    named = set(re.findall(r"`(kafka_chat_[a-z_]+)[`{ ]", OPERATIONS + README)) - {"kafka_chat_config"}
    assert {event.metric for event in EVENTS if event.metric} | named <= every_metric().keys()


def test_every_setting_that_operators_are_told_of_exists():
    sections = {key.split(".")[0] for key in keys()}
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)[`=]", OPERATIONS))
    assert {name for name in named if name.split(".")[0] in sections} <= keys().keys() | {event.name for event in EVENTS}
    for variable_name in re.findall(r"KAFKA_CHAT_[A-Z_]+", OPERATIONS):
        assert variable_name in {variable(key) for key in keys()}


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
