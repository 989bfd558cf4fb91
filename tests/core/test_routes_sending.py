"""`/send-message/chat/{chat}`: which bodies are messages, and how the others are refused."""

from __future__ import annotations

import pytest

from kafka_chat.errors import BrokerUnreachable, TooLarge
from kafka_chat.settings.model import KafkaSettings, SendingSettings, Settings
from tests.support.fake_service import app_with_service, ask

ON = Settings(sending=SendingSettings(enabled=True))
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("settings", [ON, Settings(kafka=KafkaSettings(embedded=True))], ids=["set", "embedded"])
async def test_a_message_is_handed_on_as_it_is(settings: Settings):
    app, service = app_with_service(settings)
    answer = await ask(app, "POST", "/send-message/chat/room1", json_body={"sender": "ada", "text": "héllo\u0000", "tag": "greeting"})
    assert answer.status == 200
    assert answer.json() == {"topic": "kafka.chat.room1", "partition": 0, "offset": 0}
    answer = await ask(app, "POST", "/send-message/chat/kafka.chat.room1", json_body={"sender": "ada", "text": ""})
    assert answer.json()["offset"] == 1
    assert service.sending.sent == [("room1", "ada", "héllo\u0000", "greeting"), ("room1", "ada", "", None)]


@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(sending=SendingSettings(enabled=False), kafka=KafkaSettings(embedded=True))],
    ids=["not embedded", "switched off"],
)
@pytest.mark.promise("p-send")
async def test_where_sending_is_off_the_setting_is_named(settings: Settings):
    app, service = app_with_service(settings)
    answer = await ask(app, "POST", "/send-message/chat/room1", json_body={"sender": "ada", "text": "hello"})
    assert answer.status == 403
    assert answer.json() == {"error": "sending is off here; the setting sending.enabled: true switches it on", "field": None}
    assert not service.sending.sent


BAD_BODIES = {
    "nothing": (b"", None),
    "no JSON": (b"hello", None),
    "a list": (b"[]", None),
    "null": (b"null", None),
    "no text": (b'{"sender":"ada"}', "text"),
    "no sender": (b'{"text":"x"}', "sender"),
    "a number for text": (b'{"sender":"ada","text":5}', "text"),
    "null for text": (b'{"sender":"ada","text":null}', "text"),
    "a list for tag": (b'{"sender":"ada","text":"x","tag":[]}', "tag"),
    "NaN for text": (b'{"sender":"ada","text":NaN}', "text"),
    "Infinity for tag": (b'{"sender":"ada","text":"x","tag":-Infinity}', "tag"),
    "an unknown field": (b'{"sender":"ada","text":"x","topic":"y"}', "topic"),
    "an unknown field that looks like more": (b'{"sender":"ada","text":"x","a` - at `$.text`":1}', "a` - at `$.text`"),
    "an unknown field with a lone surrogate": (b'{"sender":"ada","text":"x","\\udfff":1}', "?"),
    "a lone surrogate in text": (b'{"sender":"ada","text":"\\ud800"}', "text"),
    "a lone surrogate in sender": (b'{"sender":"\\udc00x","text":"x"}', "sender"),
    "bad UTF-8": (b'{"sender":"ada","text":"\xff"}', None),
    "bad UTF-8 in what is skipped": (b'{"sender":"ada","text":"x","more":"\xff"}', None),
    "a byte order mark": (b'\xef\xbb\xbf{"sender":"ada","text":"x"}', None),
    "two values": (b'{"sender":"ada","text":"x"}{}', None),
    "deep nesting": (b'{"sender":"ada","text":' + b"[" * 60_000, "text"),
    "deep nesting in a list": (b"[" * 60_000, None),
    "an empty sender": (b'{"sender":"","text":"x"}', "sender"),
    "a sender of 256 bytes": (b'{"sender":"' + b"a" * 256 + b'","text":"x"}', "sender"),
    "a sender with NUL": (b'{"sender":"a\\u0000","text":"x"}', "sender"),
    "a sender with a slash": (b'{"sender":"a/b","text":"x"}', "sender"),
}


@pytest.mark.parametrize(("body", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_what_is_no_message_is_refused_by_the_name_of_its_field(body: bytes, field: str | None):
    app, service = app_with_service(ON)
    answer = await ask(app, "POST", "/send-message/chat/room1", body=body, headers=JSON)
    assert answer.status == 400
    assert answer.json()["field"] == field
    assert len(answer.json()["error"]) > 10
    assert not service.sending.sent


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "is missing"),
        ({"content-type": "text/plain"}, "text/plain"),
        ({"content-type": "application/x-www-form-urlencoded"}, "urlencoded"),
    ],
    ids=["none", "text", "form"],
)
async def test_a_body_that_is_not_declared_to_be_json_is_told_the_header(headers: dict[str, str], said: str):
    app, service = app_with_service(ON)
    answer = await ask(app, "POST", "/send-message/chat/room1", body=b'{"sender":"ada","text":"x"}', headers=headers)
    assert answer.status == 415
    assert "Content-Type: application/json" in answer.json()["error"]
    assert said in answer.json()["error"]
    assert not service.sending.sent


@pytest.mark.parametrize("chat", ["", "a%2Fb", "a/b", "%ff", "%00", "a%20b", "kafka.chat.", "a" * 239, "%C3%A9"])
async def test_what_is_no_chat_is_refused(chat: str):
    app, service = app_with_service(ON)
    answer = await ask(app, "POST", f"/send-message/chat/{chat}", json_body={"sender": "ada", "text": "x"})
    assert answer.status == 400
    assert answer.json()["field"] == "chat"
    assert not service.sending.sent


async def test_a_chat_without_a_topic_is_not_found():
    app, _ = app_with_service(ON)
    answer = await ask(app, "POST", "/send-message/chat/missing", json_body={"sender": "ada", "text": "x"})
    assert answer.status == 404
    assert answer.json()["field"] == "chat"


async def test_a_body_over_the_limit_is_too_large():
    app, service = app_with_service(ON)
    frame = b'{"sender":"ada","text":""}'
    fits = frame[:-2] + b"a" * (65_536 - len(frame)) + frame[-2:]
    assert (await ask(app, "POST", "/send-message/chat/room1", body=fits, headers=JSON)).status == 200
    answer = await ask(app, "POST", "/send-message/chat/room1", body=fits[:-2] + b'a"}', headers=JSON)
    assert answer.status == 413
    assert answer.json() == {"error": "the body has more than 65536 bytes (limits.client_message_bytes)", "field": None}
    assert len(service.sending.sent) == 1


async def test_a_message_that_kafka_would_not_take_is_too_large_by_the_name_of_its_field():
    app, service = app_with_service(ON)
    service.sending.failing = TooLarge("text is too long", field="text")
    answer = await ask(app, "POST", "/send-message/chat/room1", json_body={"sender": "ada", "text": "x"})
    assert (answer.status, answer.json()["field"]) == (413, "text")


async def test_without_an_acknowledgement_it_is_a_reason_to_come_again():
    app, service = app_with_service(ON)
    service.sending.failing = BrokerUnreachable("sending to kafka.chat.room1: no answer within 5 s", topic="kafka.chat.room1")
    answer = await ask(app, "POST", "/send-message/chat/room1", json_body={"sender": "ada", "text": "x"})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
