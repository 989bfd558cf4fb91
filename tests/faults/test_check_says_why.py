"""`kafka-chat check` and `/ready` say why brokers cannot be reached, in librdkafka's words, for each kind of listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from kafka_chat.cli.check import check
from kafka_chat.delivery.timeouts import UNMEASURED_SECONDS
from tests.support.calls import metric
from tests.support.chats import with_overrides
from tests.support.deadlines import HANG_SECONDS
from tests.support.http_client import http
from tests.support.many_listeners import NOBODY, USER, ManyListeners, many_listeners, secured
from tests.support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.chats import Chats
    from tests.support.serving import Server

pytestmark = pytest.mark.deadline(120)

BUSY_SECONDS = 2.0  # what a shared machine may add


class Way(NamedTuple):
    listener: str
    properties: Mapping[str, str]
    says: tuple[str, ...]


def without(properties: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in properties.items() if name not in names}


SECURED = secured()
WITHOUT_TLS = without({**SECURED, "security_protocol": "sasl_plaintext"}, "ssl_ca_location")
WAYS = {
    "a wrong password": Way("password", {**WITHOUT_TLS, "sasl_password": "guess"}, ("Invalid username or password",)),
    "a wrong password, by TLS": Way("secure", {**SECURED, "sasl_password": "guess"}, ("Invalid username or password",)),
    "a mechanism that is not there": Way("password", {**WITHOUT_TLS, "sasl_mechanism": "SCRAM-SHA-256"}, ("mechanisms: PLAIN",)),
    "a certificate that nobody vouches for": Way("tls", {"security_protocol": "ssl"}, ("certificate verify failed", "ssl.ca.location")),
    "TLS to a plain listener": Way("lost", {"security_protocol": "ssl"}, ("SSL", "PLAINTEXT broker listener?")),
    "a plain connection to TLS": Way("tls", {}, ("closed", "security.protocol")),
    "a plain connection to one that asks for a password": Way("password", {}, ("closed", "security.protocol")),
    "an advertised name that does not resolve": Way("lost", {}, ("advertised.listeners", NOBODY, "resolve")),
}
NOWHERE = {"127.0.0.1:1": ("Connection refused",), f"{NOBODY}:9092": ("Failed to resolve", NOBODY)}


@pytest.fixture(scope="module")
def broker() -> Iterator[ManyListeners]:
    with many_listeners() as broker:
        yield broker


@pytest.mark.parametrize("way", WAYS)
async def test_what_keeps_it_from_a_broker_is_said(broker: ManyListeners, chats: Chats, way: str) -> None:
    listener, properties, says = WAYS[way]
    findings = await check(broker.settings(chats.settings_for(broker.cluster), listener, **properties))
    (wrong,) = [finding for finding in findings if not finding.ok]
    assert wrong.subject == "brokers"
    assert all(words in wrong.sentence for words in says), wrong.sentence
    assert SECURED["sasl_password"] not in wrong.sentence.replace(USER, "")
    assert wrong.sentence.count("SSL handshake failed") <= 1, "the same is said once"


@pytest.mark.parametrize("address", NOWHERE)
async def test_that_nobody_listens_or_no_such_host_is_known_is_said(broker: ManyListeners, chats: Chats, address: str) -> None:
    settings = with_overrides(chats.settings_for(broker.cluster), kafka__bootstrap_servers=address)
    (wrong,) = [finding for finding in await check(settings) if not finding.ok]
    assert all(words in wrong.sentence for words in NOWHERE[address]), wrong.sentence


async def test_with_the_right_ones_nothing_is_wrong(broker: ManyListeners, chats: Chats) -> None:
    findings = await check(broker.settings(chats.settings_for(broker.cluster), "secure", **SECURED))
    assert [finding.sentence for finding in findings if not finding.ok] == []


async def told(server: Server, words: tuple[str, ...]) -> str:
    """Return the first of `/ready`'s problems once all of the words are in it."""
    while True:
        (first, *_) = (await http(server.url, "GET", "/ready")).json()["problems"]
        if all(one in first for one in words):
            return first
        await trio.sleep(0.02)


@pytest.mark.promise("p-brokers-away", "p-ready-says-why")
@pytest.mark.parametrize("way", ["a plain connection to one that asks for a password", "a certificate that nobody vouches for"])
async def test_a_service_whose_brokers_never_answer_says_so_in_time_and_in_the_same_words(
    broker: ManyListeners, chats: Chats, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    listener, properties, says = WAYS[way]
    settings = broker.settings(chats.settings_for(broker.cluster), listener, **properties)
    began = trio.current_time()
    async with serving(settings) as server:
        with trio.fail_after(HANG_SECONDS):
            await told(server, ("no broker has answered yet", *says))
            at_once = trio.current_time() - began
            first = await told(server, ("no broker answers", *says))
            took = trio.current_time() - began
            assert await metric(server.url, "brokers_reachable") == 0
    assert at_once < UNMEASURED_SECONDS - 1
    assert took < UNMEASURED_SECONDS + BUSY_SECONDS
    (away,) = [record.message for record in caplog.records if record.message.startswith("brokers.away")]
    assert all(words in away for words in says), first
