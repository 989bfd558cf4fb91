"""What the client makes of addresses, answers and failures, before any of them is met."""

from __future__ import annotations

import errno
import socket

import pytest
from trio_websocket import CloseReason, ConnectionClosed

from kafka_chat.client import Away, Refused, _refusal, _unreached, _why_closed, address_of, quoted
from kafka_chat.errors import SettingsError

ADDRESS = address_of("http://127.0.0.1:8001")


@pytest.mark.parametrize(
    ("url", "websocket"),
    [
        ("http://127.0.0.1:8001", "ws://127.0.0.1:8001/x"),
        ("https://chat.example.org/", "wss://chat.example.org/x"),
        ("http://[::1]:8001/behind/a/proxy/", "ws://[::1]:8001/behind/a/proxy/x"),
    ],
)
def test_a_url_is_where_its_websockets_are(url, websocket):
    assert address_of(url).websocket("/x") == websocket


@pytest.mark.parametrize("url", ["", "localhost:8001", "ftp://a", "http://", "http://a:99999", "http://a b", "http://[::1", "http://a/?b"])
def test_what_is_no_url_is_told_with_what_is_needed(url):
    with pytest.raises(SettingsError, match=r"http://HOST:PORT or https://HOST:PORT is needed$"):
        address_of(url)


def test_names_keep_their_bytes_in_a_path():
    assert quoted("a/b ü") == "a%2Fb%20%C3%BC"
    assert quoted("a\udcff") == "a%FF"


@pytest.mark.parametrize("status", [400, 403, 404, 426])
def test_a_refusal_for_good_is_the_sentence_of_the_service(status):
    refusal = _refusal(ADDRESS, status, b'{"error":"no","field":null}', "")
    assert type(refusal) is Refused
    assert str(refusal) == f"no ({status})"


def test_a_refusal_for_now_says_when_to_come_again():
    away = _refusal(ADDRESS, 503, b'{"error":"no place","field":null}', "5")
    assert isinstance(away, Away)
    assert (str(away), away.retry_seconds) == ("no place (503)", 5)
    endless = _refusal(ADDRESS, 503, b"", "Wed, 21 Oct 2099 07:28:00 GMT")
    assert isinstance(endless, Away)
    assert endless.retry_seconds == 0


def test_another_service_is_told_as_such():
    assert "not as kafka_chat does" in str(_refusal(ADDRESS, 404, b"<html>", ""))


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012])
def test_what_may_be_better_the_next_time_is_no_refusal(code):
    assert str(code) in _why_closed(ConnectionClosed(CloseReason(code, "why")))


@pytest.mark.parametrize("code", [1002, 1007, 1008, 1009])
def test_what_will_be_no_better_is_a_refusal(code):
    with pytest.raises(Refused, match=f"{code} why"):
        _why_closed(ConnectionClosed(CloseReason(code, "why")))


def test_a_cut_connection_is_told_without_a_number():
    assert _why_closed(ConnectionClosed(None)) == "the connection was lost"
    assert _why_closed(ConnectionClosed(CloseReason(1006, None))) == "the connection was lost"


def test_why_nobody_answers_is_what_the_system_says_and_no_more():
    inner = ConnectionRefusedError(errno.ECONNREFUSED, "Error connecting to ('127.0.0.1', 8001): Connection refused")
    outer = OSError("all attempts to connect failed")
    outer.__cause__ = ExceptionGroup("", [inner])
    assert _unreached(ADDRESS, outer) == "127.0.0.1:8001 cannot be reached: Connection refused; is `kafka-chat serve` running?"
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert _unreached(ADDRESS, unknown) == "127.0.0.1:8001 cannot be reached: Name or service not known"
    assert _unreached(ADDRESS, TimeoutError("timed out")) == "127.0.0.1:8001 cannot be reached: timed out"
