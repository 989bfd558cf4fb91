"""The query parameters of a client are understood as docs/protocol.md says, or refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat.names import ChatNames, comparable
from kafka_chat.chat.resume_cursor import TEXT_LENGTH, MessageIds, cluster_mark, head_of_cursor, parse, text_of, topic_entry
from kafka_chat.delivery.audience.wanted_start import EARLIEST, LATEST, Since
from kafka_chat.delivery.records.formats import Format
from kafka_chat.delivery.session.options import DEFAULT_OPTIONS, SessionOptions
from kafka_chat.errors import RequestError
from kafka_chat.settings.model import KafkaSettings, Settings
from kafka_chat.web.requests.parameters import PARAMETERS as MOST
from kafka_chat.web.requests.parameters import Query, parse_options
from tests.support.fake_service import app_with_service, ask

NAMES = ChatNames("kafka.chat.")
NOW = 1_764_064_800_123  # 2025-11-25T10:00:00.123Z
CURSOR = text_of(head_of_cursor(cluster_mark("here"), 3) + topic_entry("kafka.chat.global", "id1", [5, 7]))
ID = MessageIds("kafka.chat.global", "id1", 1).of(9).decode()


def options(query: bytes | str, format: Format = Format.PLAIN, last_had: str | None = None) -> SessionOptions:
    return parse_options(query.encode() if isinstance(query, str) else query, format=format, names=NAMES, now_ms=NOW, last_had=last_had)


def refused(query: bytes | str, format: Format = Format.PLAIN) -> RequestError:
    with pytest.raises(RequestError) as caught:
        options(query, format)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("query", ["", "&", "&&", "any=thing", "topic=room1&x", "=x", "Chat=room1", "meta=0", "heartbeat=none"])
@pytest.mark.promise("p-v1-nothing-changes", "p-unknown-parameters")
def test_who_asks_for_nothing_that_is_known_gets_what_it_always_got(query: str):
    assert options(query) == DEFAULT_OPTIONS
    assert options(query).is_default


def test_everything_may_be_asked_for_together():
    query = f"cursor={CURSOR}&from=earliest&until=-1s&chat=a&chat=b&tag=t&tag=&sender=ann&heartbeat=30&rewind=5&new=1"
    assert options(query, Format.V1) == SessionOptions(
        format=Format.V1,
        chats=("a", "b"),
        cursor=parse(CURSOR),
        start=EARLIEST,
        until_ms=NOW - 1000,
        tags=frozenset({"t", ""}),
        senders=frozenset({"ann"}),
        heartbeat_seconds=30.0,
    )


# The form


@pytest.mark.parametrize(
    ("query", "format", "got"),
    [
        ("meta=1", Format.PLAIN, Format.V1),
        ("meta=0", Format.PLAIN, Format.PLAIN),
        ("meta=0", Format.V1, Format.V1),
        ("meta=1", Format.EVENTS, Format.EVENTS),
        ("meta=what", Format.EVENTS, Format.EVENTS),
    ],
)
@pytest.mark.promise("p-v1-asked-for")
def test_meta_asks_for_v1_where_the_subprotocol_cannot(query: str, format: Format, got: Format):
    assert options(query, format).format is got


@pytest.mark.parametrize(("asked", "seconds"), [("30", 30.0), ("10", 10.0), ("0", 10.0), ("9", 10.0), ("601", 600.0), ("999999", 600.0)])
@pytest.mark.promise("p-heartbeat")
def test_heartbeats_come_every_ten_to_six_hundred_seconds(asked: str, seconds: float):
    assert options(f"heartbeat={asked}", Format.V1).heartbeat_seconds == seconds


@pytest.mark.promise("p-bare-parameters")
def test_only_v1_has_heartbeats():
    assert options("heartbeat=30").heartbeat_seconds is None
    assert options("heartbeat=30", Format.EVENTS).heartbeat_seconds is None
    assert options("heartbeat=30&meta=1").heartbeat_seconds == 30.0


# Where it begins


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("latest", LATEST),
        ("earliest", EARLIEST),
        ("2025-11-25T10:00:00Z", Since(1_764_064_800_000)),
        ("2025-11-25T10:00:00.123Z", Since(1_764_064_800_123)),
        ("2025-11-25t10:00:00z", Since(1_764_064_800_000)),
        ("2025-11-25T12:00:00%2B02:00", Since(1_764_064_800_000)),
        ("2025-11-25T12:00:00+02:00", Since(1_764_064_800_000)),  # a plus that nobody encoded is a space
        ("2025-11-25T05:00:00-05:00", Since(1_764_064_800_000)),
        ("2025-11-24T10:00:00.1234567890Z", Since(1_763_978_400_124)),  # the first millisecond that is not before it
        ("1969-12-31T23:59:59Z", Since(0)),
        ("0001-01-01T00:00:00%2B14:00", Since(0)),
        ("9999-12-31T23:59:59Z", Since(NOW)),  # nothing of a time that is not yet is there: what comes from now on
        (str(NOW + 1), Since(NOW)),
        ("100000000000", Since(100_000_000_000)),
        ("1764064800123", Since(1_764_064_800_123)),
        ("-90s", Since(NOW - 90_000)),
        ("-15m", Since(NOW - 900_000)),
        ("-2h", Since(NOW - 7_200_000)),
        ("-7d", Since(NOW - 604_800_000)),
        ("-0s", Since(NOW)),
        ("-999999999d", Since(0)),
    ],
)
@pytest.mark.promise("p-from")
def test_from_takes_a_word_a_time_or_a_span(value: str, start: object):
    assert options(f"from={value}").beginning(LATEST) == start


@pytest.mark.promise("p-from")
def test_seconds_are_refused_where_milliseconds_are_needed():
    error = refused("from=1764064800")
    assert error.field == "from"
    assert "milliseconds are needed" in str(error)


def test_a_time_without_its_zone_is_refused_with_a_word_on_that():
    assert "zone" in str(refused("from=2025-11-25T10:00:00"))


@pytest.mark.parametrize("value", ["latest", "earliest"])
def test_until_is_a_time(value: str):
    assert refused(f"until={value}").field == "until"


@pytest.mark.promise("p-until")
def test_until_is_not_in_the_future():
    assert options(f"until={NOW}").until_ms == NOW
    error = refused(f"until={NOW + 60_001}")
    assert error.field == "until"
    assert "future" in str(error)


@pytest.mark.promise("p-until")
def test_until_may_be_as_far_ahead_as_clocks_are():
    assert options(f"until={NOW + 60_000}").until_ms == NOW + 60_000


TEN_AT_UTC = 1_763_978_400_000  # 2025-11-24T10:00:00Z


@pytest.mark.parametrize(
    ("written", "by", "later_ms"),
    [
        ("2025-11-24T10:00:00.123456789Z", "Instant.toString() of Java", 124),
        ("2025-11-24T10:00:00.123456Z", "Instant.toString(), most machines", 124),
        ("2025-11-24T10:00Z", "OffsetDateTime.toString() of Java at a full minute", 0),
        ("2025-11-24T11:00+01:00", "the same elsewhere", 0),
        ("2025-11-24T11:00:00.5+01:00[Europe/Berlin]", "ZonedDateTime.toString() of Java", 500),
        ("2025-11-24T10:00:00Z[UTC]", "the same in UTC", 0),
        ("2025-11-24T11:00:00+0100", "DATE_ISO8601 of PHP, date +%Y-%m-%dT%H:%M:%S%z", 0),
        ("2025-11-24T11:00:00+01:00", "DATE_ATOM of PHP, Time.iso8601 of Ruby", 0),
        ("2025-11-24T11:00:00.123+01:00", "DATE_RFC3339_EXTENDED of PHP", 123),
        ("2025-11-24T11:00:00,123456789+01:00", "date -Ins", 124),
        ("2025-11-24T11:00:00,000000000+0100", "date -Ins of older coreutils", 0),
        ("2025-11-24 11:00:00.123456789+01:00", "date --rfc-3339=ns", 124),
        ("2025-11-24 11:00:00.5+01", "PostgreSQL", 500),
        ("2025-11-24 10:00:00+00:00", "str() of a datetime of Python", 0),
        ("2025-11-24T10:00:00.123Z", "toISOString() of JavaScript", 123),
        ("2025-11-24T05:30:00.000001-04:30", "datetime.isoformat() of Python", 1),
        ("2025-11-24T09:59:60Z", "RFC 3339, section 5.7: a leap second", 0),
    ],
)
@pytest.mark.parametrize("plus", ["%2B", "+"])  # the second one arrives as a space
@pytest.mark.promise("p-from")
def test_times_are_understood_as_programs_write_them(written: str, by: str, later_ms: int, plus: str):
    address = written.replace(" ", "%20").replace("+", plus).replace("[", "%5B").replace("]", "%5D")
    assert options(f"from={address}").start == Since(TEN_AT_UTC + later_ms), by
    assert options(f"until={address}").until_ms == TEN_AT_UTC + later_ms, by


@given(st.datetimes(timezones=st.timezones()), st.sampled_from(["isoformat", "str", "no colon", "comma"]))
def test_any_time_that_python_writes_is_that_time(when: datetime, how: str):
    if when.utcoffset() % timedelta(minutes=1) or not 0 <= when.timestamp() * 1000 < NOW:
        return  # no program of today writes a zone with seconds, and a time that is not yet counts as now
    written = {"isoformat": when.isoformat(), "str": str(when), "comma": when.isoformat().replace(".", ",")}.get(how)
    written = written or when.isoformat()[:-3] + when.isoformat()[-2:]
    expected = -(-((when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) // 1000)
    assert options(urlencode({"from": written})).start == Since(expected)


@pytest.mark.promise("p-which-beginning")
def test_from_counts_before_rewind_and_a_cursor_before_both():
    asked = options(f"cursor={CURSOR}&from=latest&rewind=5")
    assert (asked.cursor, asked.start, asked.rewind) == (parse(CURSOR), None, 0)
    asked = options(f"cursor={CURSOR}&rewind=5")
    assert (asked.cursor, asked.start, asked.rewind) == (parse(CURSOR), None, 5)


@pytest.mark.parametrize("query", ["rewind=1", "from=earliest", "from=-1s", f"cursor={ID}"])
def test_whose_beginning_may_lie_in_the_past_catches_up(query: str):
    assert options(query).reads_past


@pytest.mark.parametrize("query", ["from=latest", "chat=a&tag=b", "meta=1"])
def test_whose_beginning_is_now_does_not_catch_up(query: str):
    assert not options(query).reads_past


# Cursors


@pytest.mark.promise("p-cursor")
def test_cursors_are_joined_by_dots_or_repeated():
    both = parse(f"{CURSOR}.{ID}")
    assert options(f"cursor={CURSOR}.{ID}").cursor == both
    assert options(f"cursor={CURSOR}&cursor={ID}").cursor == both
    entry = both.entry("kafka.chat.global")
    assert entry is not None
    assert dict(entry.offsets) == {0: 5, 1: 10}


def test_the_cursor_of_a_header_takes_the_place_of_those_in_the_address():
    assert options(f"cursor={CURSOR}", Format.EVENTS, last_had=ID).cursor == parse(ID)
    assert options("", Format.EVENTS, last_had=CURSOR).cursor == parse(CURSOR)
    assert options("cursor=stale%20nonsense", Format.EVENTS, last_had=CURSOR).cursor == parse(CURSOR)


@pytest.mark.parametrize("bad", ["stale nonsense", "frame", f"{CURSOR[:-1]}", "x" * (TEXT_LENGTH + 1), ""])
def test_what_is_wrong_with_the_cursor_of_a_header_names_the_header(bad: str):
    """An address may have a `cursor` as well, which is not read then: its field would send somebody to the wrong place."""
    with pytest.raises(RequestError, match=r"^Last-Event-ID(: this is not a cursor| has [0-9]+ characters)") as caught:
        options(f"cursor={CURSOR}", Format.EVENTS, last_had=bad)
    assert caught.value.field == "Last-Event-ID"


def test_a_cursor_may_come_as_the_first_frame_of_v1_alone():
    assert options("cursor=frame", Format.V1).cursor_in_frame
    assert options("cursor=frame&meta=1").cursor_in_frame
    for other in (Format.PLAIN, Format.EVENTS):
        assert refused("cursor=frame", other).field == "cursor"
    assert refused(f"cursor=frame&cursor={CURSOR}", Format.V1).field == "cursor"


# Lists


def test_chats_are_named_by_their_own_names_or_by_their_topics_and_count_once():
    assert options("chat=room1&chat=kafka.chat.room2&chat=kafka.chat.room1").chats == ("room1", "room2")


@pytest.mark.parametrize("name", ["chat", "tag", "sender"])
@pytest.mark.promise("p-chat")
def test_a_hundred_of_each_may_be_asked_for(name: str):
    query = "&".join(f"{name}=x{number}" for number in range(100))
    asked = options(query)
    assert [len(found) for found in (asked.chats, asked.tags or (), asked.senders or ()) if found] == [100]
    error = refused(f"{query}&{name}=y")
    assert error.field == name
    assert "at most 100" in str(error)


@pytest.mark.promise("p-parameters-most")
def test_an_address_has_at_most_so_many_parameters_whatever_their_names():
    assert options("&".join(["x=y"] * MOST)) == options("")
    for query in ("&".join(["x=y"] * (MOST + 1)), "&" * MOST, "tag=a&" * MOST):
        error = refused(query)
        assert str(error) == f"the address has {MOST + 1} parameters; at most {MOST} are allowed"
    everything = "&".join(f"{name}=x{number}" for name in ("chat", "tag", "sender") for number in range(100))
    assert options(everything + "&meta=1&heartbeat=20&rewind=5&" + "&".join([f"cursor={ID}"] * 190)).rewind == 5


# What is refused

BAD: list[tuple[str, str]] = [
    *[("from", value) for value in ("", "now", "Latest", "yesterday", "15m", "+15m", "-15", "-15w", "-1.5h", "-m", "--1s", "-1234567890s")],
    *[("from", value) for value in ("0", "-1", "99999999999", "1e12", "1764064800123.5", "100000000000000", "9" * 30, "\u0661" * 12)],
    *[("from", f"2025-{rest}") for rest in ("13-01T00:00:00Z", "02-30T00:00:00Z", "11-25T24:00:01Z", "11-25T10:00:00%2B25:00", "11-25")],
    *[("from", value) for value in ("20251125T100000Z", "2025-W48-2T10:00:00Z", "2025-11-25T10Z", "2025-11-25T10:00:00,Z")],
    *[
        ("from", f"2025-11-25T10:00:00{zone}")
        for zone in ("%2B2", "%2B020", "%2B02:60", "%2B24:00", "Z[", "Z%5B%5D", "[UTC]", "UTC", "%2B02:00:00")
    ],
    *[("until", value) for value in ("", "now", "1764064800", "2025-11-25T10:00:00")],
    *[("rewind", value) for value in ("", "0", "-1", "1001", "1.0", "0x10", "many", "1" * 20, "\u0663")],
    *[("cursor", value) for value in ("", "x", "AQ", "frame", f"{CURSOR}.", f".{CURSOR}", f"{CURSOR}..{ID}", "%20", CURSOR[:-1] + "!")],
    *[("chat", value) for value in ("", "a/b", "a%20b", "kafka.chat.", "%C3%A9", "x" * 300)],
]


@pytest.mark.parametrize(("name", "value"), BAD)
@pytest.mark.parametrize("format", [Format.PLAIN, Format.V1, Format.EVENTS])
@pytest.mark.promise("p-bad-parameters")
def test_a_bad_value_is_refused_by_the_name_of_its_parameter(name: str, value: str, format: Format):
    if (name, value, format) == ("cursor", "frame", Format.V1):
        assert options("cursor=frame", format).cursor_in_frame
        return
    error = refused(f"{name}={value}", format)
    assert error.field == name
    assert str(error).startswith(name)
    assert len(str(error)) < 400


@pytest.mark.parametrize(("name", "value"), [("meta", ""), ("meta", "2"), ("meta", "true"), ("meta", "0&meta=0")])
def test_meta_is_one_or_zero(name: str, value: str):
    assert refused(f"{name}={value}").field == name


@pytest.mark.parametrize("value", ["", "-1", "10.5", "often", "nan", "inf"])
def test_a_heartbeat_is_whole_seconds(value: str):
    assert refused(f"heartbeat={value}", Format.V1).field == "heartbeat"


@pytest.mark.parametrize("query", ["from=latest&from=latest", "until=-1s&until=-2s", "rewind=1&rewind=1", "meta=1&meta=1"])
def test_what_has_one_value_may_be_given_once(query: str):
    error = refused(query)
    assert error.field == query.partition("=")[0]
    assert "once" in str(error)


def test_a_bad_rewind_is_refused_also_where_from_counts():
    assert refused("from=latest&rewind=none").field == "rewind"


@pytest.mark.parametrize("value", [b"%ff", b"%C3", b"%ED%A0%80", b"%C0%AF", b"\xff"])
def test_percent_encoding_that_is_no_utf8_is_refused(value: bytes):
    error = refused(b"tag=" + value)
    assert error.field == "tag"
    assert "UTF-8" in str(error)
    assert refused(value + b"=x").field is None


def test_raw_utf8_means_what_percent_encoded_does():
    assert options("tag=é".encode()).tags == options("tag=%C3%A9").tags == frozenset({"é"})


def outcome(query: bytes | str, format: Format) -> SessionOptions | RequestError:
    try:
        return options(query, format)
    except RequestError as error:
        return error


@given(st.binary(max_size=80), st.sampled_from(Format))
def test_any_query_is_understood_or_refused(query: bytes, format: Format):
    found = outcome(query, format)
    if isinstance(found, RequestError):
        assert found.status == 400
    else:
        assert found.format is format or (format is Format.PLAIN and b"meta" in query)


PARAMETERS = ["cursor", "from", "rewind", "until", "chat", "tag", "meta", "heartbeat"]


@given(st.lists(st.tuples(st.sampled_from(PARAMETERS), st.text(max_size=12))), st.sampled_from(Format))
def test_any_values_are_understood_or_refused_by_name_in_strict_words(pairs: list[tuple[str, str]], format: Format):
    found = outcome("&".join(f"{name}={quote(value, errors='surrogatepass')}" for name, value in pairs), format)
    if isinstance(found, RequestError):
        assert found.field in dict(pairs)
        assert str(found).encode()
    else:
        assert format is Format.PLAIN or found.format is format


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=100))
def test_tags_and_senders_come_through_every_encoding(values: list[str]):
    for name in ("tag", "sender"):
        query = urlencode([(name, value) for value in values])
        found = options(query)
        assert (found.tags if name == "tag" else found.senders) == frozenset(map(comparable, values))
        percent = "&".join(f"{name}={quote(value, safe='')}" for value in values)
        assert options(percent) == found


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2025, 11, 24)), st.integers(-24 * 60 + 1, 24 * 60 - 1))
def test_a_time_is_the_same_moment_in_every_zone(naive: datetime, minutes: int):
    when = naive.replace(microsecond=naive.microsecond // 1000 * 1000, tzinfo=UTC)
    there = when.astimezone(timezone(timedelta(minutes=minutes)))
    expected = Since((when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    assert options("from=" + when.isoformat()).start == expected
    assert options("from=" + there.isoformat()).start == expected  # with its plus as it is
    assert options("from=" + quote(there.isoformat())).start == expected


def test_a_query_tells_of_every_value_of_a_name():
    asked: Any = Query(b"a=1&b=2&a=3+4&c")
    assert asked.all("a") == ["1", "3 4"]
    assert asked.one("b") == "2"
    assert asked.one("c") == ""
    assert asked.one("d") is None
    assert asked.some("d") == []


EMBEDDED = Settings(kafka=KafkaSettings(embedded=True))
HAS_NO_TIMES = "from is a time, but the embedded broker cannot look up times; use latest, earliest or rewind=N"


@pytest.mark.parametrize("time", ["-1h", "2026-11-25T10:00:00Z", str(NOW)])
@pytest.mark.promise("p-from-embedded")
async def test_a_beginning_by_a_time_is_refused_on_the_embedded_broker_which_has_none(time: str):
    app, service = app_with_service(EMBEDDED)
    path, history = f"/receive-message/client/ada?from={time}", f"/history/room1?from={time}"
    stream = f"/receive-message/client/ada/events?from={time}"
    told = {"error": HAS_NO_TIMES, "field": "from"}
    for answer in (await ask(app, "GET", path, websocket=True), await ask(app, "GET", stream), await ask(app, "GET", history)):
        assert (answer.status, answer.json()) == (400, told)
    assert (await ask(app, "GET", path, websocket=True, subprotocols=["kafka-chat.v1"])).close == (4400, HAS_NO_TIMES)
    assert not service.admitted
    assert not service.history.asked


@pytest.mark.parametrize("where", ["latest", "earliest"])
async def test_a_beginning_without_a_time_is_possible_on_the_embedded_broker(where: str):
    app, _ = app_with_service(EMBEDDED)
    assert (await ask(app, "GET", f"/receive-message/client/ada?from={where}", websocket=True)).accepted
    assert (await ask(app, "GET", f"/history/room1?from={where}")).status == 200
