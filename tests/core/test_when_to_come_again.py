"""Documents and clients have the same table of temporary and final close codes, statuses and `Retry-After`."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.client import Away, Refused
from kafka_chat.client.address import address_of
from kafka_chat.client.backoff import Pauses
from kafka_chat.client.come_again import CLOSE_CODES, FIRST_PAUSE_SECONDS, SOON, is_passing, pause_after, wait_seconds
from kafka_chat.client.http_api import refusal
from tests.support.deadlines import HANG_SECONDS
from tests.support.node import node

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "kafka_chat/web/browser_client/kafka-chat.js"
ADDRESS = address_of("http://127.0.0.1:8001")


def documented() -> list[tuple[str, str]]:
    """The first and the last column of the document's table."""
    section = (ROOT / "docs/protocol.md").read_text().partition("### When to reconnect\n")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in section.splitlines() if re.match(r"\| [0-9cs]", line)]
    return [(row[0], row[-1].strip("| ")) for row in rows[1:]]


@pytest.mark.promise("p-come-again")
def test_the_document_says_of_each_close_code_what_the_python_client_does():
    said = {int(code): answer for code, answer in documented() if re.fullmatch(r"[14]\d{3}", code)}
    assert {code: answer == "no" for code, answer in said.items()} == {code: pause is None for code, pause in CLOSE_CODES.items()}
    for code, pause in CLOSE_CODES.items():
        if pause is not None and pause.least_seconds:
            assert f"after {pause.least_seconds:g} s" in said[code]
        if pause is not None and pause.bound_seconds != SOON.bound_seconds:
            assert f"any part of {pause.bound_seconds:g}" in said[code]


def test_the_document_says_of_all_other_codes_and_of_statuses_what_the_python_client_does():
    said = dict(documented())
    assert (said["4400 to 4499, all others"], said["close codes, all others"]) == ("no", "yes")
    assert {code for code in range(1000, 5000) if pause_after(code) is None} - set(CLOSE_CODES) == set(range(4400, 4500)) - set(CLOSE_CODES)
    assert said["408, 425, 429"] == said["500 to 599, except 501 and 505"] == "yes"
    assert said["statuses, all others"] == "no"
    passing = {408, 425, 429, *range(500, 600)} - {501, 505}
    assert {status for status in range(100, 600) if is_passing(status)} == passing


@pytest.mark.promise("p-come-again")
def test_the_javascript_client_has_the_table_of_the_python_client():
    script = f"import {{ CLOSE_CODES }} from {json.dumps(str(CLIENT))}; console.log(JSON.stringify(CLOSE_CODES))"
    said = subprocess.run([node(), "--input-type=module", "--eval", script], capture_output=True, check=True, timeout=HANG_SECONDS)
    theirs = {int(code): pause for code, pause in json.loads(said.stdout).items()}
    assert theirs == {
        code: None if pause is None else [pause.least_seconds * 1000, pause.bound_seconds * 1000] for code, pause in CLOSE_CODES.items()
    }


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507])
def test_a_status_that_is_passing_is_waited_for(status: int):
    away = refusal(ADDRESS, status, b"slow down", "7")
    assert isinstance(away, Away)
    assert (away.code, away.retry_seconds) == (status, 7)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 409, 413, 426, 431, 501, 505])
def test_a_status_that_would_be_the_same_again_is_final(status: int):
    assert isinstance(refusal(ADDRESS, status, b'{"error":"no","field":null}', "7"), Refused)


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("", 0), ("0", 0), ("7", 7), ("300", 300), ("301", 300), ("9" * 5000, 300), ("-1", 0), ("1.5", 0), ("²", 0), ("soon", 0), ("1e3", 0)],
)
@pytest.mark.promise("p-retry-after")
def test_a_pause_is_as_long_as_asked_for_and_never_without_end(asked: str, waited: int):
    assert wait_seconds(asked) == waited


@pytest.mark.parametrize(
    ("ahead", "least", "most"), [(timedelta(minutes=2), 60, 121), (timedelta(days=400), 300, 300), (timedelta(-1), 0, 0)]
)
def test_a_pause_may_be_asked_for_by_a_date(ahead: timedelta, least: int, most: int):
    assert least <= wait_seconds(format_datetime(datetime.now(UTC) + ahead, usegmt=True)) <= most


@given(st.text())
def test_whatever_is_asked_for_is_a_pause_within_bounds(asked: str):
    assert 0 <= wait_seconds(asked) <= 300


def test_a_first_pause_is_anything_up_to_its_bound_and_a_close_code_may_ask_for_a_longer_one():
    pauses = [Pauses().next() for _ in range(500)]
    assert 0 <= min(pauses) < 0.1 * FIRST_PAUSE_SECONDS
    assert 0.9 * FIRST_PAUSE_SECONDS < max(pauses) <= FIRST_PAUSE_SECONDS
    for code, asked in CLOSE_CODES.items():
        if asked is not None:
            bound = max(FIRST_PAUSE_SECONDS, asked.bound_seconds)
            assert all(asked.least_seconds <= Pauses().next(after=code) <= asked.least_seconds + bound for _ in range(20)), code
