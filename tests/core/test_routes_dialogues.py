"""The WebSockets that answer: `/subscribing/{username}` and `/send-message/chat/{chat}`, frame by frame."""

from __future__ import annotations

import json

import pytest

from kafka_chat.errors import BrokerUnreachable, SendingOff
from kafka_chat.settings.model import SendingSettings, Settings
from tests.support.fake_service import app_with_service, ask

ON = Settings(sending=SendingSettings(enabled=True))


def chat(name: str, *, exists: bool = False, default: bool = False) -> dict[str, object]:
    return {"chat": name, "topic": f"kafka.chat.{name}", "exists": exists, "default": default}


GLOBAL = chat("global", exists=True, default=True)


def following(*chats: dict[str, object]) -> dict[str, object]:
    return {"username": "ada", "chats": list(chats)}


@pytest.mark.promise("p-dialogue-answers", "p-dialogue-address")
async def test_topics_in_the_address_are_subscribed_to_and_answered_as_over_http():
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/subscribing/ada?topic=room1&topic=kafka.chat.blue", websocket=True, frames=1)
    assert answer.accepted
    assert [json.loads(frame) for frame in answer.frames] == [following(chat("blue"), GLOBAL, chat("room1"))]
    over_http = await ask(app, "POST", "/subscribing/ada?topic=room1")
    assert answer.frames == (over_http.body.decode(),)


@pytest.mark.promise("p-dialogue-subscribing")
async def test_each_further_frame_is_a_topic_or_a_chat():
    app, _ = app_with_service()
    says = ["room1", "kafka.chat.blue", "room1\n"]
    answer = await ask(app, "GET", "/subscribing/ada", websocket=True, says=says, frames=3)
    blue, room1 = chat("blue"), chat("room1")
    assert [json.loads(frame) for frame in answer.frames] == [
        following(GLOBAL, room1),
        following(blue, GLOBAL, room1),
        following(blue, GLOBAL, room1),
    ]
    assert (await ask(app, "GET", "/subscribing/ada")).json() == following(blue, GLOBAL, room1)  # the socket is closed by now


@pytest.mark.promise("p-dialogue-errors", "p-dialogue-binary")
async def test_an_error_is_the_object_of_all_errors_and_the_socket_stays_open():
    app, service = app_with_service()
    says = ["", "no room", "a/b", b"room2", "\ud800", '{"topic":"room1"}', "x" * 300, "room1"]
    answer = await ask(app, "GET", "/subscribing/ada?topic=b%20ad", websocket=True, says=says, frames=len(says) + 1)
    *errors, last = [json.loads(frame) for frame in answer.frames]
    assert len(errors) == len(says)
    for error in errors:
        assert set(error) == {"error", "field"}
        assert len(error["error"]) > 10
    assert [error["field"] for error in errors] == ["topic"] * 4 + [None] + ["topic"] * 3
    assert "binary" in errors[4]["error"]
    assert last == following(GLOBAL, chat("room1"))
    assert service.subscriptions.followed == {"ada": {"room1"}}


async def test_a_parameter_that_there_is_not_is_named_in_the_first_frame():
    app, service = app_with_service()
    answer = await ask(app, "GET", "/subscribing/ada?topics=room1", websocket=True, frames=1)
    assert json.loads(answer.frames[0])["field"] == "topics"
    assert not service.subscriptions.followed


async def test_a_broker_that_is_away_is_an_error_like_all_others():
    app, service = app_with_service()
    service.subscriptions.failing = BrokerUnreachable("no broker answered within 5 s")
    answer = await ask(app, "GET", "/subscribing/ada", websocket=True, says=["room1", "room2"], frames=2)
    assert [json.loads(frame) for frame in answer.frames] == [{"error": "no broker answered within 5 s", "field": None}] * 2
    assert b'kafka_chat_requests_refused_total{status="503"} 2.0' in service.telemetry.metrics()


async def test_a_dialogue_takes_a_place_and_gives_it_back():
    app, service = app_with_service(ON)
    service.places = 0
    for target in ("/subscribing/ada?topic=room1", "/send-message/chat/room1"):
        answer = await ask(app, "GET", target, websocket=True)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
    assert not service.subscriptions.followed
    service.places = 1
    for target in ("/subscribing/ada", "/send-message/chat/room1"):
        assert (await ask(app, "GET", target, websocket=True)).accepted
        assert not service.admitted


@pytest.mark.promise("p-earlier-sending")
async def test_each_message_that_is_sent_is_answered_by_where_it_is_or_why_not_in_order():
    app, service = app_with_service(ON)
    says = [
        '{"sender":"ada","text":"one","tag":"greeting"}',
        '{"sender":"ada"}',
        "hello",
        '{"sender":"ada","text":"two","tag":null}',
        '{"sender":"a/b","text":"x"}',
        '{"sender":"ada","text":NaN}',
        b'{"sender":"ada","text":"x"}',
        '{"sender":"ada","text":"three"}',
    ]
    answer = await ask(app, "GET", "/send-message/chat/kafka.chat.room1", websocket=True, says=says, frames=len(says))
    frames = [json.loads(frame) for frame in answer.frames]
    assert [frames[n] for n in (0, 3, 7)] == [{"topic": "kafka.chat.room1", "partition": 0, "offset": n} for n in range(3)]
    assert [frames[n]["field"] for n in (1, 2, 4, 5, 6)] == ["text", None, "sender", "text", None]
    assert frames[1]["error"] == "text is missing"
    assert service.sending.sent == [("room1", "ada", text, tag) for text, tag in (("one", "greeting"), ("two", None), ("three", None))]


EARLIER = [  # as the front end of the earlier system sends them
    {"sender": "ada", "text": "one", "timestamp": "2026-11-30T10:00:00.000Z", "chat": "room1"},
    {"sender": "ada", "text": "two", "tag": "greeting", "timestamp": 1796032800000, "chat": "another room"},
    {"text": "three", "chat": None, "sender": "ada", "timestamp": {}, "id": [1, {"text": "no"}]},
]


@pytest.mark.promise("p-earlier-sending")
async def test_a_client_of_the_earlier_system_sends_further_keys_and_is_heard():
    app, service = app_with_service(ON)
    says = [json.dumps(frame) for frame in EARLIER]
    answer = await ask(app, "GET", "/send-message/chat/room1", websocket=True, says=says, frames=len(says))
    assert [json.loads(frame) for frame in answer.frames] == [{"topic": "kafka.chat.room1", "partition": 0, "offset": n} for n in range(3)]
    assert service.sending.sent == [("room1", "ada", text, tag) for text, tag in (("one", None), ("two", "greeting"), ("three", None))]


@pytest.mark.parametrize("body", EARLIER, ids=["of a string", "of a number", "of anything"])
async def test_who_sends_by_post_is_told_of_a_key_that_means_nothing(body: dict[str, object]):
    app, service = app_with_service(ON)
    answer = await ask(app, "POST", "/send-message/chat/room1", json_body=body)
    assert answer.status == 400
    assert answer.json()["field"] in body.keys() - {"sender", "text", "tag"}
    assert not service.sending.sent


async def test_a_chat_without_a_topic_is_told_message_by_message():
    app, _ = app_with_service(ON)
    answer = await ask(app, "GET", "/send-message/chat/missing", websocket=True, says=['{"sender":"ada","text":"x"}'], frames=1)
    assert json.loads(answer.frames[0])["field"] == "chat"


@pytest.mark.parametrize("name", ["", "a%2Fb", "a/b", "%ff", "a%20b", "a" * 239])
async def test_a_name_that_is_no_chat_is_refused_before_the_accept(name: str):
    app, _ = app_with_service(ON)
    answer = await ask(app, "GET", f"/send-message/chat/{name}", websocket=True)
    assert (answer.status, answer.json()["field"]) == (400, "chat")


@pytest.mark.promise("p-earlier-sending")
async def test_where_sending_is_off_the_handshake_is_refused():
    app, service = app_with_service()
    answer = await ask(app, "GET", "/send-message/chat/room1", websocket=True)
    assert answer.status == 403
    assert answer.json() == {"error": str(SendingOff()), "field": None}
    assert not service.admitted


async def test_plain_http_is_told_how_to_connect():
    app, _ = app_with_service(ON)
    answer = await ask(app, "GET", "/send-message/chat/room1")
    assert answer.status == 426
    assert "new WebSocket(" in answer.json()["error"]
    answer = await ask(app, "GET", "/receive-messages/user/ada")
    assert answer.status == 426
    assert "new WebSocket(" in answer.json()["error"]


@pytest.mark.promise("p-earlier-subscribing")
async def test_the_earlier_path_subscribes_to_the_chat_that_it_names_whatever_its_body():
    app, _ = app_with_service()
    answer = await ask(app, "POST", "/subscribing/ada/room1", json_body={"anything": ["at", "all"]})
    assert (answer.status, answer.json()) == (200, following(GLOBAL, chat("room1")))
    answer = await ask(app, "POST", "/subscribing/ada/kafka.chat.blue", body=b"{no JSON", headers={"content-type": "application/json"})
    assert (answer.status, answer.json()) == (200, following(chat("blue"), GLOBAL, chat("room1")))


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/subscribing/ada/", "chat"),
        ("/subscribing/ada/a%20b", "chat"),
        ("/subscribing/ada/a%2Fb", "chat"),
        ("/subscribing/ada/a/b", "chat"),
        ("/subscribing/ada/%ff", "chat"),
        ("/subscribing/ada%2Froom1", "username"),
        ("/subscribing/%ff/room1", "username"),
        ("/subscribing/a%00/room1", "username"),
    ],
)
async def test_what_is_wrong_in_the_earlier_path_is_named(path: str, field: str):
    app, service = app_with_service()
    answer = await ask(app, "POST", path)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert not service.subscriptions.followed


async def test_the_earlier_paths_take_names_as_the_others_do():
    app, service = app_with_service()
    assert (await ask(app, "POST", "/subscribing/Ju%CC%88rgen/room1")).json()["username"] == "Jürgen"
    behind = await ask(app, "POST", "/v1/subscribing/a%25b/room1", root_path="/v1")
    assert behind.json()["username"] == "a%b"
    assert (await ask(app, "GET", "/receive-messages/user/a%20b", websocket=True)).accepted
    assert not service.admitted
