"""`/history/{chat}`: its parameters, its caching, and its links."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from urllib.parse import parse_qs

import pytest
from msgspec import convert

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.resume_cursor import head_of_cursor, parse, text_of
from kafka_chat.delivery.audience.wanted_start import EARLIEST, LATEST, Since
from kafka_chat.delivery.history.query import PageQuery
from kafka_chat.delivery.session.notices import Gap
from kafka_chat.errors import BrokerUnreachable, NotFound
from kafka_chat.settings.model import Settings
from tests.support.fake_service import Answer, app_with_service, ask

PATH = "/history/room1"
CURSOR, OTHER = (text_of(head_of_cursor(None, number)) for number in (1, 2))


def links(answer: Answer) -> dict[str, dict[str, list[str]]]:
    """The addresses in `Link`, their parameters decoded."""
    found = re.findall(r'<\?([^>]*)>; rel="(\w+)"', answer.headers["link"])
    return {relation: parse_qs(query, keep_blank_values=True) for query, relation in found}


@pytest.mark.promise("p-page-answer")
async def test_a_page_is_what_the_chat_s_history_says():
    app, service = app_with_service()
    gap = Gap(chat="room1", partition=2, first_lost=3, first_left=9, cause=LossCause.RETENTION)
    service.history.answer = replace(service.history.answer, messages=[b'{"text":"m0"}', b'{"text":"m1"}'], gaps=[gap])
    answer = await ask(app, "GET", PATH)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "messages": [{"text": "m0"}, {"text": "m1"}],
        "gaps": [{"type": "gap", "chat": "room1", "partition": 2, "first_lost": 3, "first_left": 9, "cause": "retention"}],
        "next": "NEXT",
        "prev": "PREV",
        "end": True,
    }
    assert not service.admitted  # the place is given back


async def test_an_empty_page_is_json_too():
    app, service = app_with_service()
    service.history.answer = replace(service.history.answer, messages=[])
    assert (await ask(app, "GET", PATH)).json()["messages"] == []


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", PageQuery(chat="room1")),
        ("limit=7&direction=backward", PageQuery(chat="room1", limit=7, backward=True)),
        ("direction=forward&from=earliest", PageQuery(chat="room1", start=EARLIEST)),
        ("from=latest", PageQuery(chat="room1", start=LATEST)),
        ("from=1764064800123", PageQuery(chat="room1", start=Since(1764064800123))),
        ("rewind=5", PageQuery(chat="room1", rewind=5)),
        (f"cursor={CURSOR}&cursor={OTHER}", PageQuery(chat="room1", cursor=parse(f"{CURSOR}.{OTHER}"))),
        (
            "tag=a&tag=&sender=bob&until=1764064800123",
            PageQuery(
                chat="room1",
                tags=frozenset({"a", ""}),
                senders=frozenset({"bob"}),
                until_ms=1764064800123,
            ),
        ),
    ],
)
async def test_what_is_asked_for_goes_to_the_history(query: str, asked: PageQuery):
    app, service = app_with_service()
    for path in (PATH, "/history/kafka.chat.room1"):
        assert (await ask(app, "GET", f"{path}?{query}")).status == 200
    assert service.history.asked == [asked, asked]


async def test_a_time_that_is_not_yet_is_now_and_a_span_is_before_now():
    app, service = app_with_service()
    before = time.time_ns() // 1_000_000
    assert (await ask(app, "GET", f"{PATH}?from=2200-01-01T00:00:00Z")).status == 200
    assert (await ask(app, "GET", f"{PATH}?from=-15m&until=-1m")).status == 200
    after = time.time_ns() // 1_000_000
    future, past = service.history.asked
    assert isinstance(future.start, Since)
    assert isinstance(past.start, Since)
    assert past.until_ms is not None
    for time_ms in (future.start.time_ms, past.start.time_ms + 15 * 60_000, past.until_ms + 60_000):
        assert before <= time_ms <= after


@pytest.mark.parametrize(
    "query",
    [
        *["limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=1"],
        *["direction=up", "direction=", "direction=forward&direction=forward"],
        *["cursor=x", "cursor=frame", "from=yesterday", "until=latest", "until=9999-12-31T00:00:00Z", "rewind=0", "tag=%ff"],
    ],
)
@pytest.mark.promise("p-page-limit")
async def test_a_bad_value_is_refused_by_the_name_of_its_parameter(query: str):
    app, service = app_with_service()
    answer = await ask(app, "GET", f"{PATH}?{query}")
    assert answer.status == 400
    assert answer.json()["field"] == query.partition("=")[0]
    assert not service.history.asked
    assert not service.admitted


@pytest.mark.parametrize("chat", ["", "a%2Fb", "a/b", "a%20b", "%ff", "kafka.chat.", "x" * 250])
async def test_a_chat_that_is_none_is_refused_by_name(chat: str):
    app, service = app_with_service()
    answer = await ask(app, "GET", f"/history/{chat}")
    assert (answer.status, answer.json()["field"]) == (400, "chat")
    assert not service.history.asked


async def test_what_goes_wrong_has_a_status_and_gives_its_place_back():
    app, service = app_with_service()
    for error, status in ((NotFound("no chat", field="chat"), 404), (BrokerUnreachable("no broker answered"), 503)):
        service.history.failing = error
        answer = await ask(app, "GET", PATH)
        assert answer.status == status
        assert ("retry-after" in answer.headers) == (status == 503)
    assert not service.admitted
    service.places = 0
    answer = await ask(app, "GET", PATH)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


async def test_links_lead_to_the_neighbours_with_what_was_asked_for():
    app, service = app_with_service()
    service.history.answer = replace(service.history.answer, next=CURSOR, prev=OTHER)
    answer = await ask(app, "GET", f"{PATH}?from=-1h&rewind=3&until=-1s&limit=7&tag=a%26b&tag=&sender=%C3%A9&direction=forward&x=1")
    found = links(answer)
    until = found["next"].pop("until")
    assert found["prev"].pop("until") == until
    kept = {"limit": ["7"], "tag": ["", "a&b"], "sender": ["é"]}
    assert found == {"next": {"cursor": [CURSOR], **kept}, "prev": {"cursor": [OTHER], "direction": ["backward"], **kept}}
    again = await ask(app, "GET", f"{PATH}?{answer.headers['link'].partition('>')[0].removeprefix('<?')}")
    assert links(again)["next"] == {"cursor": [CURSOR], "until": until, **kept}


@pytest.mark.parametrize("name", ["tag", "sender"])
@pytest.mark.promise("p-page-links")
async def test_links_that_a_proxy_would_take_for_too_long_a_head_are_left_out(name: str):
    app, service = app_with_service()
    service.history.answer = replace(service.history.answer, next=CURSOR, prev=OTHER)
    sizes = []
    for count in range(0, 100, 3):
        answer = await ask(app, "GET", f"{PATH}?" + "&".join(f"{name}=f%20%C3%A9%20{number}" for number in range(count)))
        sizes.append(len(answer.headers.get("link", "")))
        assert (answer.status, answer.json()["next"], answer.json()["prev"]) == (200, CURSOR, OTHER)
    assert max(sizes) <= 2048
    assert sizes[0] > 0
    assert sizes[-1] == 0
    service.history.answer = replace(service.history.answer, next="A" * 2048)  # many partitions
    assert "link" not in (await ask(app, "GET", PATH)).headers


@pytest.mark.promise("p-page-no-store")
async def test_a_page_that_may_change_is_not_kept():
    app, _ = app_with_service()
    answer = await ask(app, "GET", PATH)
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


@pytest.mark.promise("p-page-stays")
async def test_a_page_that_stays_the_same_is_kept_for_an_hour_by_its_client_alone_and_not_sent_twice():
    app, service = app_with_service()
    service.history.answer = replace(service.history.answer, closed=True)
    answer = await ask(app, "GET", PATH)
    assert answer.headers["cache-control"] == "private, max-age=3600, immutable"
    tag = answer.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    for named in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        again = await ask(app, "GET", PATH, headers={"if-none-match": named})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == answer.headers["cache-control"]
    assert (await ask(app, "GET", PATH, headers={"if-none-match": '"x"'})).status == 200
    service.history.answer = replace(service.history.answer, messages=[b'{"text":"m1"}'])
    other = await ask(app, "GET", PATH, headers={"if-none-match": tag})
    assert other.status == 200
    assert other.headers["etag"] != tag


@pytest.mark.promise("p-page-stays")
async def test_a_page_of_a_compacted_topic_is_asked_for_again():
    app, service = app_with_service()
    service.history.answer = replace(service.history.answer, closed=True, compacted=True)
    answer = await ask(app, "GET", PATH)
    assert answer.headers["cache-control"] == "private, no-cache"
    assert (await ask(app, "GET", PATH, headers={"if-none-match": answer.headers["etag"]})).status == 304


@pytest.mark.parametrize(
    ("cache", "kept", "kept_of_a_compacted_topic"),
    [
        ("private", "private, max-age=60, immutable", "private, no-cache"),
        ("public", "public, max-age=60, immutable", "public, no-cache"),
        ("none", "no-store", "no-store"),
    ],
)
@pytest.mark.promise("p-page-cache")
async def test_an_operator_says_who_keeps_a_page_and_for_how_long(cache: str, kept: str, kept_of_a_compacted_topic: str):
    app, service = app_with_service()
    service.settings = convert({"history": {"cache": cache, "cache_seconds": 60}}, Settings)
    for compacted, expected in ((False, kept), (True, kept_of_a_compacted_topic)):
        service.history.answer = replace(service.history.answer, closed=True, compacted=compacted)
        assert (await ask(app, "GET", PATH)).headers["cache-control"] == expected


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=30", 30),
        ("wait=55", 55),
        ("wait=56", 55),
        ("wait=999999999", 55),
        ("wait=0", 0),
        ('WAIT="5"', 5),
        ("respond-async, wait=10", 10),
        ("respond-async; wait = 10", 10),
        ("wait", 0),
        ('respond-async, foo="a, wait=7"; bar, wait=10', 10),
        ('foo="\\"", wait="1\\0"', 10),
        (",, wait=10", 10),
        ("wait=10, wait=20", 10),
        ('wait="5;', 0),
        ('wait="5', 0),
        ('wait=5"', 0),
        ('foo="wait=5', 0),
        ('wait="5" 6', 0),
        ("wait = = 5", 0),
        ("wait=\xb2", 0),
        ("wait=-1", 0),
        ("wait=x", 0),
        ("await=10", 0),
        ("", 0),
    ],
)
@pytest.mark.promise("p-page-waits")
async def test_how_long_to_wait_is_a_preference(prefer: str, seconds: int):
    app, service = app_with_service()
    answer = await ask(app, "GET", PATH, headers={"prefer": prefer})
    assert answer.status == 200
    assert service.history.asked[0].wait_seconds == seconds
    assert answer.headers.get("preference-applied") == (f"wait={seconds}" if seconds else None)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_other_methods_are_refused(method: str):
    app, _ = app_with_service()
    answer = await ask(app, method, PATH)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
