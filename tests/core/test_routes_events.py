"""`/receive-message/client/{username}/events`: who gets a stream, of what, and how it begins and ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from kafka_chat.chat.resume_cursor import head_of_cursor, parse, text_of
from kafka_chat.delivery.audience.wanted_start import EARLIEST
from kafka_chat.delivery.ports import Disconnect
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import SessionOptions
from kafka_chat.settings.model import AccessSettings, Settings
from kafka_chat.web.streams.event_sink import COMMENT, SILENCE_SECONDS, AsgiEventsSink, run_comments
from tests.core.test_routes_receive import bad_names
from tests.support.events_client import EventsParser
from tests.support.fake_service import FIRST_EVENT, Answer, FakeService, app_with_service, ask

PATH = "/receive-message/client/ada/events"
CURSOR, OTHER = (text_of(head_of_cursor(None, number)) for number in (1, 2))


def options_seen(service: FakeService) -> list[tuple[str, SessionOptions]]:
    """What clients that were admitted asked for, from now on."""
    seen: list[tuple[str, SessionOptions]] = []
    admit = service.admit

    def watched(name: str, options: SessionOptions, **_: object):
        seen.append((name, options))
        return admit(name, options)

    service.admit = watched
    return seen


async def test_a_stream_is_neither_kept_nor_collected_on_its_way():
    app, service = app_with_service()
    answer = await ask(app, "GET", PATH)
    assert answer.status == 200
    assert answer.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "access-control-allow-origin": "*",
        "access-control-expose-headers": answer.headers["access-control-expose-headers"],
        "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    assert answer.body == FIRST_EVENT
    assert service.gone == [Disconnect(code=1005)]
    assert not service.admitted  # the place is given back


@pytest.mark.promise("p-events")
async def test_what_is_asked_for_goes_to_the_session():
    app, service = app_with_service()
    seen = options_seen(service)
    await ask(app, "GET", PATH.replace("ada", "Ju%CC%88rgen") + "?chat=a&chat=b&from=earliest&tag=t&meta=1&heartbeat=30")
    assert seen == [("Jürgen", SessionOptions(format=Format.EVENTS, chats=("a", "b"), start=EARLIEST, tags=frozenset({"t"})))]


@pytest.mark.promise("p-last-event-id")
async def test_the_id_of_the_last_event_wins_over_the_cursor_in_the_address():
    app, service = app_with_service()
    seen = options_seen(service)
    await ask(app, "GET", f"{PATH}?cursor={CURSOR}")
    await ask(app, "GET", f"{PATH}?cursor={CURSOR}", headers={"last-event-id": OTHER})
    await ask(app, "GET", PATH, headers={"last-event-id": OTHER})
    await ask(app, "GET", f"{PATH}?cursor={CURSOR}", headers={"last-event-id": ""})
    assert [options.cursor for _, options in seen] == [parse(CURSOR), parse(OTHER), parse(OTHER), parse(CURSOR)]


@pytest.mark.parametrize("query", ["cursor=x", "cursor=frame", "from=yesterday", "rewind=0", "until=latest", "chat=a%20b", "tag=%ff"])
async def test_a_bad_value_is_refused_by_the_name_of_its_parameter(query: str):
    app, service = app_with_service()
    answer = await ask(app, "GET", f"{PATH}?{query}")
    assert answer.status == 400
    assert answer.json()["field"] == query.partition("=")[0]
    assert not service.admitted


async def test_an_id_that_is_no_cursor_is_refused():
    app, _ = app_with_service()
    for value in ("x", "\xff", "AQAA.x", "9"):
        answer = await ask(app, "GET", PATH, headers={"last-event-id": value})
        assert (answer.status, answer.json()["field"]) == (400, "Last-Event-ID")


@bad_names
async def test_a_name_that_is_none_is_refused_by_name(name: str):
    app, service = app_with_service()
    answer = await ask(app, "GET", f"/receive-message/client/{name}/events")
    if name in ("", "ada/"):  # an empty segment
        assert answer.status == 404
    else:
        assert answer.status == 400
        assert answer.json()["field"] == "username"
    assert not service.admitted


async def test_where_no_place_is_left_the_answer_says_when_to_come_again():
    app, service = app_with_service()
    service.places = 0
    answer = await ask(app, "GET", PATH)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json() == {"error": "all places are taken; try again later", "field": None}


async def test_a_page_that_may_not_use_the_service_gets_no_stream():
    app, service = app_with_service(Settings(access=AccessSettings(origins=("https://chat.example",))))
    for origin in ("https://other.example", "null"):
        answer = await ask(app, "GET", PATH, headers={"origin": origin})
        assert answer.status == 403
        assert "access.origins" in answer.json()["error"]
    assert not service.admitted
    for headers in ({"origin": "https://chat.example"}, {}):
        answer = await ask(app, "GET", PATH, headers=headers)
        assert answer.status == 200
        assert answer.headers.get("access-control-allow-origin") == headers.get("origin")


async def test_head_tells_of_the_stream_and_takes_no_place():
    app, service = app_with_service()
    seen = options_seen(service)
    answer = await ask(app, "HEAD", PATH)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"", "text/event-stream; charset=utf-8")
    assert (await ask(app, "HEAD", f"{PATH}?from=x")).status == 400
    assert not seen


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(method: str):
    app, _ = app_with_service()
    answer = await ask(app, method, PATH)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")


# A cursor in the body


@pytest.mark.parametrize("nothing", [{}, {"cursor": None}, {"cursor": ""}])
@pytest.mark.promise("p-last-event-id")
async def test_a_cursor_in_the_body_wins_over_the_address_and_the_last_event_over_both(nothing: dict[str, object]):
    app, service = app_with_service()
    seen = options_seen(service)
    third = text_of(head_of_cursor(None, 3))
    answer = await ask(app, "POST", f"{PATH}?chat=a", json_body={"cursor": CURSOR})
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream; charset=utf-8", FIRST_EVENT)
    await ask(app, "POST", f"{PATH}?cursor={OTHER}", json_body={"cursor": CURSOR})
    await ask(app, "POST", f"{PATH}?cursor={OTHER}", json_body=nothing)
    await ask(app, "POST", PATH, json_body={"cursor": CURSOR}, headers={"last-event-id": third})
    await ask(app, "POST", PATH, json_body={"cursor": CURSOR}, headers={"last-event-id": ""})
    assert [options.cursor for _, options in seen] == [parse(text) for text in (CURSOR, CURSOR, OTHER, third, CURSOR)]
    assert seen[0] == ("ada", SessionOptions(format=Format.EVENTS, chats=("a",), cursor=parse(CURSOR)))
    assert not service.admitted


@pytest.mark.promise("p-events-by-post")
async def test_a_cursor_that_no_header_has_room_for_comes_in_the_body():
    app, service = app_with_service()
    seen = options_seen(service)
    long = ".".join([CURSOR] * 5000)
    assert len(long) > 40_000
    assert (await ask(app, "POST", PATH, json_body={"cursor": long})).status == 200
    assert [options.cursor for _, options in seen] == [parse(CURSOR)]


@pytest.mark.parametrize(
    ("said", "status", "field"),
    [
        ({"json_body": {"cursor": "x"}}, 400, "cursor"),
        ({"json_body": {"cursor": 9}}, 400, "cursor"),
        ({"json_body": {"cursors": CURSOR}}, 400, "cursors"),
        ({"json_body": []}, 400, None),
        ({"body": b"{", "headers": {"content-type": "application/json"}}, 400, None),
        ({"body": b"{}"}, 415, None),
        ({}, 415, None),
        ({"json_body": {"cursor": "A" * 1_050_000}}, 413, None),
    ],
)
async def test_a_body_that_is_none_is_refused_and_takes_no_place(said: dict[str, Any], status: int, field: str | None):
    app, service = app_with_service()
    answer = await ask(app, "POST", PATH, **said)
    assert (answer.status, answer.json()["field"]) == (status, field)
    assert not service.admitted


async def test_a_page_that_may_not_use_the_service_begins_no_stream_by_post():
    app, service = app_with_service(Settings(access=AccessSettings(origins=("https://chat.example",))))
    answer = await ask(app, "POST", PATH, json_body={}, headers={"origin": "https://other.example"})
    assert answer.status == 403
    assert not service.admitted


# Come again

EVENTS_WANTED = {"accept": "text/event-stream"}


def unavailable(answer: Answer) -> dict[str, Any]:
    """The error that a stream consists of."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert "retry-after" not in answer.headers
    parser = EventsParser()
    (event,) = parser.feed(answer.body)
    assert answer.body.count(b"\n\n") == 1, "one block, that the client gets nothing empty"
    assert parser.retry_ms is not None
    assert 5_000 <= parser.retry_ms <= 30_000
    assert (event.name, event.last_id) == ("unavailable", "")
    return event.said


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.promise("p-unavailable")
async def test_who_names_event_streams_is_told_to_come_again_by_one_that_ends(method: str):
    app, service = app_with_service()
    said = {} if method == "GET" else {"json_body": {}}
    service.places = 0
    answer = await ask(app, method, PATH, headers=EVENTS_WANTED, **said)
    assert unavailable(answer) == {"error": "all places are taken; try again later", "field": None}
    assert answer.headers["access-control-allow-origin"] == "*"  # a page of another origin would give up without it
    assert not service.admitted
    assert b'kafka_chat_requests_refused_total{status="503"} 1.0' in (await ask(app, "GET", "/metrics")).body
    app.service = None
    assert "not running" in unavailable(await ask(app, method, PATH, headers=EVENTS_WANTED, **said))["error"]


@pytest.mark.promise("p-unavailable-retry")
async def test_those_that_are_refused_together_do_not_come_again_together():
    app, service = app_with_service()
    service.places = 0
    assert len({(await ask(app, "GET", PATH, headers=EVENTS_WANTED)).body for _ in range(20)}) > 15


@pytest.mark.parametrize(
    "accept", ["TEXT/Event-Stream", "text/html, text/event-stream;q=0.5", "text/event-stream; charset=utf-8", "*/*;q=0,text/event-stream"]
)
async def test_event_streams_may_be_named_among_others(accept: str):
    app, service = app_with_service()
    service.places = 0
    unavailable(await ask(app, "GET", PATH, headers={"accept": accept}))


@pytest.mark.parametrize(
    "accept", ["*/*", "text/*", "", "text/event-stream-not", "application/json", "text/event-stream;q=0.000", "text/event-stream; Q=0"]
)
@pytest.mark.promise("p-events-refused")
async def test_everybody_else_is_refused_by_the_status(accept: str):
    app, service = app_with_service()
    service.places = 0
    answer = await ask(app, "GET", PATH, headers={"accept": accept})
    assert (answer.status, answer.headers["retry-after"], answer.json()["field"]) == (503, "5", None)


async def test_what_does_not_pass_by_itself_is_refused_by_its_status_whatever_is_accepted():
    app, service = app_with_service(Settings(access=AccessSettings(origins=("https://chat.example",))))
    assert (await ask(app, "GET", f"{PATH}?from=x", headers=EVENTS_WANTED)).status == 400
    assert (await ask(app, "GET", PATH, headers={**EVENTS_WANTED, "origin": "null"})).status == 403
    assert (await ask(app, "PUT", PATH, headers=EVENTS_WANTED)).status == 405
    service.places = 0
    assert (await ask(app, "GET", "/history/room1", headers=EVENTS_WANTED)).status == 503  # no stream would have come
    app.service = None
    assert (await ask(app, "HEAD", PATH, headers=EVENTS_WANTED)).status == 503


async def test_a_handshake_on_the_path_of_a_stream_is_refused():
    app, service = app_with_service()
    answer = await ask(app, "GET", PATH, websocket=True)
    assert (answer.status, answer.accepted) == (400, False)
    assert not service.admitted


async def test_a_place_is_given_back_where_something_fails_after_the_route():
    app, service = app_with_service()

    async def broken(response):
        raise RuntimeError("a bug behind the route")

    app.after_request(broken)
    assert (await ask(app, "GET", PATH)).status == 500
    assert not service.admitted


# The sink


class Server:
    """An ASGI server that takes pieces as long as it is let."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False
        self.aborted: list[str | None] = []
        self.open = trio.Event()
        self.open.set()

    async def send(self, event: dict[str, object]) -> None:
        assert not self.ended
        assert isinstance(event["body"], bytes)
        self.got += event["body"]  # what is handed over is the server's, also where nobody waits for it
        self.ended = not event["more_body"]
        await self.open.wait()

    def stop(self) -> None:
        self.open = trio.Event()

    def sink(self) -> AsgiEventsSink:
        sink = AsgiEventsSink(self.send, abort=self.aborted.append, write_seconds=5)
        sink._pieces.clear()
        sink._owed = 0
        return sink


async def test_all_that_is_offered_is_written_in_order_and_nothing_behind_the_end():
    server = Server()
    sink = server.sink()
    big = b"data: " + b"x" * 100_000 + b"\n\n"
    assert not sink.offer(b"data: 1\n\n")
    assert not sink.offer(big)
    assert sink.owed == 9 + len(big)
    assert await sink.flush()
    assert sink.owed == 0
    sink.offer(b"event: reconnect\n\n")
    await sink.close(1012, "the service restarts")
    sink.offer(b"data: late\n\n")
    await sink.close(1000, "")
    assert not await sink.flush()
    assert server.got == b"data: 1\n\n" + big + b"event: reconnect\n\n"
    assert server.ended
    assert server.aborted == []


@pytest.mark.promise("p-comments")
async def test_a_comment_breaks_a_silence_and_only_a_silence(autojump_clock):
    server = Server()
    sink = server.sink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_comments, sink)
        await trio.sleep(SILENCE_SECONDS - 1)
        assert server.got == b""
        sink.offer(b"data: 1\n\n")
        await sink.flush()
        await trio.sleep(SILENCE_SECONDS - 1)
        assert server.got == b"data: 1\n\n"
        await trio.sleep(1.5)
        assert server.got == b"data: 1\n\n" + COMMENT
        await trio.sleep(SILENCE_SECONDS * 10)
        assert server.got == b"data: 1\n\n" + COMMENT * 11
        await sink.close(1000, "")
    assert server.got == b"data: 1\n\n" + COMMENT * 11


async def test_who_takes_no_piece_in_time_is_cut_and_costs_nothing_more(autojump_clock):
    server = Server()
    sink = server.sink()
    server.stop()
    sink.offer(b"x" * 100_000)
    began = trio.current_time()
    assert not await sink.flush()
    assert trio.current_time() - began == 5
    assert server.aborted == ["write_seconds"]
    assert sink.owed == 0
    sink.offer(b"more")
    assert sink.owed == 0


async def test_the_end_waits_for_a_slow_client_no_longer_than_a_write(autojump_clock):
    server = Server()
    sink = server.sink()
    server.stop()
    sink.offer(b"x" * 100_000)
    began = trio.current_time()
    await sink.close(1012, "the service restarts")
    assert trio.current_time() - began == 5
    assert "write_seconds" in server.aborted


async def test_a_flush_that_is_cancelled_leaves_the_rest_owed_and_nothing_torn(autojump_clock):
    server = Server()
    sink = server.sink()
    server.stop()
    data = b"".join(b"data: %d\n\n" % number for number in range(10_000))
    sink.offer(data)
    with trio.move_on_after(1):
        await sink.flush()
    assert 0 < sink.owed < len(data)
    server.open.set()
    await sink.close(1012, "")
    assert server.got == data


async def test_an_abort_frees_whoever_writes():
    server = Server()
    sink = server.sink()
    server.stop()
    sink.offer(b"x" * 100_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.flush)
        await trio.testing.wait_all_tasks_blocked()
        sink.abort()
        assert server.aborted == [None]
        server.open.set()
    assert sink.owed == 0
    assert not await sink.flush()
