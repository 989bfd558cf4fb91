"""What the client makes of URLs, answers and failures, without a server."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from kafka_chat.client import Away, Refused, quoted
from kafka_chat.client.address import address_of
from kafka_chat.client.http_api import refusal, unreached
from kafka_chat.errors import SettingsError

ADDRESS = address_of("http://127.0.0.1:8001")


@pytest.mark.parametrize(
    ("url", "origin", "prefix"),
    [
        ("http://127.0.0.1:8001", "127.0.0.1:8001", ""),
        ("https://chat.example.org/", "chat.example.org", ""),
        ("http://[::1]:8001/behind/a/proxy/", "[::1]:8001", "/behind/a/proxy"),
    ],
)
def test_a_url_is_where_the_service_is(url, origin, prefix):
    address = address_of(url)
    assert (address.origin, address.prefix, address.secure) == (origin, prefix, url.startswith("https"))


@pytest.mark.parametrize("url", ["", "localhost:8001", "ftp://a", "http://", "http://a:99999", "http://a b", "http://[::1", "http://a/?b"])
def test_what_is_no_url_is_told_with_what_is_needed(url):
    with pytest.raises(SettingsError, match=r"http://HOST:PORT or https://HOST:PORT is needed$"):
        address_of(url)


def test_names_keep_their_bytes_in_a_path():
    assert quoted("a/b ü") == "a%2Fb%20%C3%BC"
    assert quoted("a\udcff") == "a%FF"


@pytest.mark.parametrize("status", [400, 403, 404, 426])
def test_a_refusal_for_good_is_the_sentence_of_the_service(status):
    refused = refusal(ADDRESS, status, b'{"error":"no","field":null}', "")
    assert type(refused) is Refused
    assert (refused.code, refused.reason) == (status, "no")
    assert str(refused) == f"no ({status})"


def test_a_refusal_for_now_says_when_to_come_again():
    away = refusal(ADDRESS, 503, b'{"error":"no place","field":null}', "5")
    assert isinstance(away, Away)
    assert (str(away), away.retry_seconds) == ("no place (503)", 5)


def test_another_service_is_told_as_such():
    assert "not as kafka_chat does" in str(refusal(ADDRESS, 404, b"<html>", ""))


def test_why_nobody_answers_is_what_the_system_says_and_no_more():
    inner = ConnectionRefusedError(errno.ECONNREFUSED, "Error connecting to ('127.0.0.1', 8001): Connection refused")
    outer = OSError("all attempts to connect failed")
    outer.__cause__ = ExceptionGroup("", [inner])
    assert unreached(ADDRESS, outer) == "127.0.0.1:8001 cannot be reached: Connection refused; is `kafka-chat serve` running?"
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert unreached(ADDRESS, unknown) == "127.0.0.1:8001 cannot be reached: Name or service not known"
    assert unreached(ADDRESS, TimeoutError("timed out")) == "127.0.0.1:8001 cannot be reached: timed out"
    distrusted = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    assert "self-signed certificate" in unreached(ADDRESS, distrusted)
