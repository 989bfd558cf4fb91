"""Every event is a log line and a metric, and no event can flood the log."""

from __future__ import annotations

import ast
import inspect
import logging
import re

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.chat.message import Reject
from kafka_chat.telemetry import events as module
from kafka_chat.telemetry.events import EVENTS, LINES_A_SECOND, SESSION_LINES_A_SECOND, SESSION_LINES_AT_ONCE
from kafka_chat.telemetry.exposition import exposition
from kafka_chat.telemetry.lines import KINDS, TELL_SECONDS, Rates
from kafka_chat.telemetry.metrics import Telemetry, WorkersTelemetry


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def telemetry(clock: Clock, caplog: pytest.LogCaptureFixture) -> Telemetry:
    caplog.set_level(logging.INFO, logger="kafka_chat")
    return Telemetry(clock=clock)


def samples(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(telemetry.metrics().decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def reject(telemetry: Telemetry, offset: int, reason: Reject = Reject.BAD_JSON) -> None:
    telemetry.record_rejected(topic="kafka.chat.x", partition=0, offset=offset, reason=reason)


def test_a_session_is_one_line_when_it_comes_and_one_when_it_goes(telemetry: Telemetry, caplog: pytest.LogCaptureFixture):
    telemetry.session_opened(session_id="s1", username="ada lovelace", peer="[::1]:50000")
    assert samples(telemetry)[("kafka_chat_sessions",)] == 1
    telemetry.session_closed(
        session_id="s1", username="ada", seconds=1.23456, messages=5, bytes_sent=500, code=1001, by_service=True, fell_behind=2
    )
    assert caplog.messages == [
        'session.opened session=s1 user="ada lovelace" peer=[::1]:50000',
        "session.closed session=s1 user=ada seconds=1.235 messages=5 bytes=500 code=1001 by=service fell_behind=2",
    ]
    found = samples(telemetry)
    assert found[("kafka_chat_sessions",)] == 0
    assert found[("kafka_chat_sessions_opened_total",)] == 1
    assert found[("kafka_chat_sessions_closed_total", "1001")] == 1
    assert found[("kafka_chat_sessions_fell_behind_total",)] == 2


@pytest.mark.parametrize("username", ["a\nb=c", 'a"b', "a\u2028b", "a\u202eb", "ü", "", "a b"])
@pytest.mark.promise("p-log-lines")
def test_a_line_is_one_line_whatever_is_in_it(telemetry: Telemetry, caplog: pytest.LogCaptureFixture, username: str):
    telemetry.session_opened(session_id="s1", username=username, peer="x")
    (line,) = caplog.messages
    assert line.isascii()
    assert line.isprintable()
    assert re.fullmatch(r'session\.opened session=s1 user=(\S+|".*") peer=x', line)


def test_close_codes_that_a_client_invents_share_one_label(telemetry: Telemetry):
    for code in range(3000, 3100):
        telemetry.session_opened(session_id="s", username="u", peer="p")
        telemetry.session_closed(
            session_id="s", username="u", seconds=0, messages=0, bytes_sent=0, code=code, by_service=False, fell_behind=0
        )
    assert samples(telemetry)[("kafka_chat_sessions_closed_total", "other")] == 100


@pytest.mark.parametrize("code", [1011, 1012, 1013])
def test_a_code_that_says_something_of_the_service_counts_only_where_the_service_said_it(code: int, telemetry: Telemetry):
    for by_service in (True, False, False):
        telemetry.session_opened(session_id="s", username="u", peer="p")
        telemetry.session_closed(
            session_id="s", username="u", seconds=0, messages=0, bytes_sent=0, code=code, by_service=by_service, fell_behind=0
        )
    found = samples(telemetry)
    assert found[("kafka_chat_sessions_closed_total", str(code))] == 1
    assert found[("kafka_chat_sessions_closed_total", "other")] == 2


@pytest.mark.promise("p-log-rates", "p-log-left-out")
def test_an_event_writes_so_many_lines_and_then_one_a_minute_that_says_how_many_were_left_out(
    telemetry: Telemetry, clock: Clock, caplog: pytest.LogCaptureFixture
):
    for offset in range(1_000):
        reject(telemetry, offset)
    assert len(caplog.messages) == LINES_A_SECOND
    reject(telemetry, 1_000)
    clock.now += TELL_SECONDS - 1
    telemetry.tell_left_out()
    assert len(caplog.messages) == LINES_A_SECOND
    clock.now += 1
    telemetry.tell_left_out()
    assert caplog.messages[LINES_A_SECOND:] == [f"log.left_out event=record.rejected count={1_001 - LINES_A_SECOND} reason=bad_json"]
    telemetry.tell_left_out()
    assert len(caplog.messages) == LINES_A_SECOND + 1
    assert samples(telemetry)[("kafka_chat_records_rejected_total", "bad_json")] == 1_001
    assert samples(telemetry)[("kafka_chat_log_lines_dropped_total", "rate")] == 1_001 - LINES_A_SECOND


def test_what_was_left_out_is_told_by_the_next_event_too(telemetry: Telemetry, clock: Clock, caplog: pytest.LogCaptureFixture):
    for offset in range(LINES_A_SECOND + 3):
        reject(telemetry, offset)
    clock.now += TELL_SECONDS
    reject(telemetry, 500)
    assert caplog.messages[LINES_A_SECOND:] == [
        "log.left_out event=record.rejected count=3 reason=bad_json",
        "record.rejected reason=bad_json topic=kafka.chat.x partition=0 offset=500",
    ]


def test_lines_that_keep_coming_are_written_at_the_rate_of_their_event(
    telemetry: Telemetry, clock: Clock, caplog: pytest.LogCaptureFixture
):
    for offset in range(100_000):
        clock.now += 0.001
        reject(telemetry, offset)
    written = sum(message.startswith("record.rejected") for message in caplog.messages)
    assert written == pytest.approx(100 * LINES_A_SECOND, abs=2 * LINES_A_SECOND)
    assert sum(message.startswith("log.left_out") for message in caplog.messages) == 1


def test_all_clients_of_an_instance_may_come_back_at_once_and_each_has_its_line(telemetry: Telemetry, caplog: pytest.LogCaptureFixture):
    for number in range(SESSION_LINES_AT_ONCE):
        telemetry.session_opened(session_id=str(number), username="ada", peer="p")
    assert len(caplog.messages) == SESSION_LINES_AT_ONCE
    telemetry.session_opened(session_id="one", username="too many", peer="p")
    assert len(caplog.messages) == SESSION_LINES_AT_ONCE
    telemetry.session_closed(
        session_id="one", username="u", seconds=0, messages=0, bytes_sent=0, code=1000, by_service=False, fell_behind=0
    )
    assert len(caplog.messages) == SESSION_LINES_AT_ONCE + 1
    assert samples(telemetry)[("kafka_chat_sessions_opened_total",)] == SESSION_LINES_AT_ONCE + 1


def test_a_client_in_a_loop_for_an_hour_fills_no_disk_and_each_that_comes_is_counted(
    telemetry: Telemetry, clock: Clock, caplog: pytest.LogCaptureFixture
):
    """A thousand connections a second wrote 20 MB a minute."""
    clients = 60_000
    for _ in range(clients):
        clock.now += 0.001
        telemetry.session_opened(session_id="0123456789abcdef", username="u", peer="127.0.0.1:50000")
    sessions = [message for message in caplog.messages if message.startswith("session.opened")]
    assert len(sessions) == pytest.approx(SESSION_LINES_AT_ONCE + 60 * SESSION_LINES_A_SECOND, abs=SESSION_LINES_A_SECOND)
    found = samples(telemetry)
    assert found[("kafka_chat_sessions_opened_total",)] == clients
    assert found[("kafka_chat_log_lines_dropped_total", "rate")] == clients - len(sessions)


def test_kinds_beyond_what_is_kept_of_them_share_one_rate(clock: Clock):
    rates = Rates(clock)
    written = sum(rates.take("event", str(number), lines_a_second=1, lines_at_once=1) for number in range(10 * KINDS))
    assert written == KINDS + 1
    assert rates.left_out == 9 * KINDS - 1
    clock.now += TELL_SECONDS
    assert rates.due() == [("others", "", 9 * KINDS - 1)]


@pytest.mark.promise("p-log-left-out")
def test_one_reason_does_not_use_up_the_lines_of_another(telemetry: Telemetry, caplog: pytest.LogCaptureFixture):
    for offset in range(100):
        reject(telemetry, offset)
    reject(telemetry, 100, Reject.TOMBSTONE)
    assert caplog.messages[-1] == "record.rejected reason=tombstone topic=kafka.chat.x partition=0 offset=100"


async def test_what_was_left_out_is_told_within_a_minute_and_at_the_end(autojump_clock, caplog: pytest.LogCaptureFixture, nursery):
    telemetry = Telemetry(clock=trio.current_time)
    nursery.start_soon(telemetry.run_left_out)
    for offset in range(LINES_A_SECOND + 1):
        reject(telemetry, offset)
    await trio.sleep(TELL_SECONDS + 1.5)
    assert caplog.messages[-1] == "log.left_out event=record.rejected count=1 reason=bad_json"
    for offset in range(LINES_A_SECOND + 2):
        reject(telemetry, offset)
    nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert caplog.messages[-1] == "log.left_out event=record.rejected count=2 reason=bad_json"


def test_brokers_that_stay_away_are_told_once(telemetry: Telemetry, caplog: pytest.LogCaptureFixture):
    assert samples(telemetry)[("kafka_chat_brokers_reachable",)] == 1
    for _ in range(100):
        telemetry.brokers_away(reason="all brokers are down")
    assert samples(telemetry)[("kafka_chat_brokers_reachable",)] == 0
    for _ in range(100):
        telemetry.brokers_back()
    assert samples(telemetry)[("kafka_chat_brokers_reachable",)] == 1
    assert caplog.messages == ['brokers.away reason="all brokers are down"', "brokers.back"]


def a_bug() -> Exception:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        return error


def test_a_bug_is_told_with_its_traceback(telemetry: Telemetry, caplog: pytest.LogCaptureFixture):
    telemetry.session_failed(session_id="s1", error=ExceptionGroup("of a nursery", [a_bug()]))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert re.fullmatch(r'session\.failed session=s1 error="ValueError: a\\nb" at=test_telemetry\.py:\d+', record.getMessage())
    assert "Traceback" in caplog.text
    assert samples(telemetry)[("kafka_chat_sessions_failed_total",)] == 1


def test_what_a_client_can_bring_about_has_a_traceback_only_for_who_looks_for_it(telemetry: Telemetry, caplog: pytest.LogCaptureFixture):
    telemetry.connection_failed(peer="1.2.3.4:5", error=a_bug())
    assert "Traceback" not in caplog.text
    assert "ValueError" in caplog.text
    caplog.set_level(logging.DEBUG, logger="kafka_chat")
    telemetry.connection_failed(peer="1.2.3.4:5", error=a_bug())
    assert "Traceback" in caplog.text
    assert samples(telemetry)[("kafka_chat_connection_failures_total",)] == 2


def test_everything_is_counted(telemetry: Telemetry):
    telemetry.client_text_discarded()
    telemetry.delivered(messages=3, size=300)
    telemetry.position_lost(topic="t", partition=1, asked=5, first_left=9, cause=LossCause.RETENTION)
    telemetry.page_read(topic="t", partition=1, size=512)
    telemetry.page_read_failed(topic="t", partition=1, error=a_bug())
    telemetry.connection_aborted(peer="p", reason="write_seconds")
    telemetry.request_refused(status=404)
    telemetry.request_failed(method="GET", path="/x\n", error=a_bug())
    found = samples(telemetry)
    assert found[("kafka_chat_client_messages_discarded_total",)] == 1
    assert found[("kafka_chat_messages_delivered_total",)] == 3
    assert found[("kafka_chat_delivered_bytes_total",)] == 300
    assert found[("kafka_chat_positions_lost_total", "retention")] == 1
    assert found[("kafka_chat_page_reads_total",)] == 1
    assert found[("kafka_chat_page_read_bytes_total",)] == 512
    assert found[("kafka_chat_page_reads_failed_total",)] == 1
    assert found[("kafka_chat_connections_aborted_total", "write_seconds")] == 1
    assert found[("kafka_chat_requests_refused_total", "404")] == 1
    assert found[("kafka_chat_requests_failed_total",)] == 1


def test_a_gauge_is_read_when_it_is_asked_for(telemetry: Telemetry):
    telemetry.gauge("sockets", lambda: 1)
    telemetry.gauge("sockets", lambda: 2)
    assert samples(telemetry)[("kafka_chat_sockets",)] == 2


def test_two_services_in_one_process_count_apart():
    one, two = Telemetry(), Telemetry()
    one.delivered(messages=1, size=1)
    assert samples(two)[("kafka_chat_messages_delivered_total",)] == 0


def test_the_list_of_events_is_whole_and_its_metrics_exist(telemetry: Telemetry):
    """What is documented is `EVENTS`; an event that is written and is not in it would be known to nobody."""
    defined = [value for value in vars(module).values() if isinstance(value, module.Event)]
    assert list(EVENTS) == defined
    sources = [ast.parse(inspect.getsource(told)) for told in (Telemetry, WorkersTelemetry)]
    used = {node.id for source in sources for node in ast.walk(source) if isinstance(node, ast.Name)}
    for name, value in vars(module).items():
        if isinstance(value, module.Event) and name not in ("LINES_LEFT_OUT", "LINES_DROPPED"):  # of the log itself
            assert name in used, name
    text = telemetry.metrics().decode() + exposition({"supervisor": WorkersTelemetry().families()}).decode()
    for event in EVENTS:
        assert event.metric is None or f"# TYPE {event.metric} " in text, event.metric
