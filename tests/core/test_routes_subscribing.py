"""`/subscribing/{username}`: requests and answers."""

from __future__ import annotations

import pytest

from kafka_chat.errors import BrokerUnreachable, Conflict
from tests.support.fake_service import app_with_service, ask


def chat(name: str, *, exists: bool = False, default: bool = False) -> dict[str, object]:
    return {"chat": name, "topic": f"kafka.chat.{name}", "exists": exists, "default": default}


GLOBAL = chat("global", exists=True, default=True)


@pytest.mark.promise("p-list")
async def test_an_unknown_user_follows_the_defaults():
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/subscribing/ada")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == b'{"username":"ada","chats":[{"chat":"global","topic":"kafka.chat.global","exists":true,"default":true}]}'


@pytest.mark.promise("p-subscribe")
async def test_post_subscribes_to_topics_and_chats_together_and_lists_all_that_is_followed():
    app, _ = app_with_service()
    answer = await ask(app, "POST", "/subscribing/ada?topic=room1&topic=kafka.chat.blue&topic=room1")
    assert answer.status == 200
    assert answer.json() == {"username": "ada", "chats": [chat("blue"), GLOBAL, chat("room1")]}
    assert (await ask(app, "GET", "/subscribing/ada")).json() == answer.json()


@pytest.mark.promise("p-unsubscribe")
async def test_delete_unsubscribes_from_the_topics_that_are_named():
    app, service = app_with_service()
    service.subscriptions.followed["ada"] = {"blue", "room1"}
    answer = await ask(app, "DELETE", "/subscribing/ada?topic=kafka.chat.blue")
    assert answer.status == 200
    assert answer.json()["chats"] == [GLOBAL, chat("room1")]


@pytest.mark.promise("p-unsubscribe")
async def test_delete_without_a_topic_leaves_the_defaults_alone():
    app, service = app_with_service()
    service.subscriptions.followed["ada"] = {"blue", "room1"}
    answer = await ask(app, "DELETE", "/subscribing/ada")
    assert answer.status == 200
    assert answer.json()["chats"] == [GLOBAL]


@pytest.mark.promise("p-unsubscribe")
async def test_delete_of_a_default_chat_is_a_conflict():
    app, _ = app_with_service()
    answer = await ask(app, "DELETE", "/subscribing/ada?topic=global")
    assert answer.status == 409
    assert answer.json() == {"error": "everybody follows global", "field": "topic"}


@pytest.mark.parametrize("query", ["topics=room1", "topic=room1&Topic=room2", "x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_parameter_that_is_not_known_changes_nothing(method: str, query: str):
    app, service = app_with_service()
    service.subscriptions.followed["ada"] = {"blue"}
    answer = await ask(app, method, f"/subscribing/ada?{query}")
    assert answer.status == 400
    assert answer.json()["field"] in ("topics", "Topic", "x")
    assert service.subscriptions.followed["ada"] == {"blue"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_list_with_a_topic_is_no_way_to_subscribe(method: str):
    app, _ = app_with_service()
    answer = await ask(app, method, "/subscribing/ada?topic=room1")
    assert answer.status == 405
    assert answer.headers["allow"] == "POST, DELETE"
    assert "POST" in answer.json()["error"]


async def test_post_without_a_topic_says_what_is_missing():
    app, _ = app_with_service()
    answer = await ask(app, "POST", "/subscribing/ada", json_body={"topic": "room1"})
    assert answer.status == 400
    assert answer.json()["field"] == "topic"
    assert "?topic=room1" in answer.json()["error"]


@pytest.mark.parametrize("topic", ["", "a%20b", "%00", "%ff", "a/b", "kafka.chat.", "%C3%A9", "a" * 239])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_what_is_no_chat_is_refused_whole(method: str, topic: str):
    app, service = app_with_service()
    service.subscriptions.followed["ada"] = {"fine"}
    answer = await ask(app, method, f"/subscribing/ada?topic=fine&topic={topic}")
    assert answer.status == 400
    assert answer.json()["field"] == "topic"
    assert service.subscriptions.followed["ada"] == {"fine"}


@pytest.mark.promise("p-subscribe")
async def test_a_hundred_topics_a_call_are_enough():
    app, _ = app_with_service()
    assert (await ask(app, "POST", "/subscribing/ada?" + "&".join(f"topic=r{n}" for n in range(100)))).status == 200
    answer = await ask(app, "POST", "/subscribing/ada?" + "&".join(f"topic=r{n}" for n in range(101)))
    assert (answer.status, answer.json()["field"]) == (400, "topic")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_broker_that_is_away_is_a_reason_to_come_again(method: str):
    app, service = app_with_service()
    service.subscriptions.failing = BrokerUnreachable("subscribing ada: no broker answered within 5 s")
    answer = await ask(app, method, "/subscribing/ada" + ("?topic=room1" if method == "POST" else ""))
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json() == {"error": "subscribing ada: no broker answered within 5 s", "field": None}


async def test_a_user_that_follows_too_much_is_a_conflict():
    app, service = app_with_service()
    service.subscriptions.failing = Conflict("ada would follow 201 chats; limits.chats_per_user is 200", field="topic")
    answer = await ask(app, "POST", "/subscribing/ada?topic=one-more")
    assert (answer.status, answer.json()["field"]) == (409, "topic")


@pytest.mark.parametrize(
    "target", ["/subscribing/J%C3%BCrgen", "/subscribing/Ju%CC%88rgen", "http://localhost:8001/%73ubscribing/J%C3%BCrgen"]
)
async def test_a_username_is_brought_to_one_form(target: str):
    app, _ = app_with_service()
    assert (await ask(app, "GET", target)).json()["username"] == "Jürgen"


async def test_behind_a_prefix_the_username_is_found_all_the_same():
    app, _ = app_with_service()
    answer = await ask(app, "GET", "/chats%20/v1/subscribing/a%25b", root_path="/chats /v1")
    assert answer.json()["username"] == "a%b"


async def test_a_path_with_an_encoded_slash_before_the_name_is_another_path():
    app, _ = app_with_service()
    assert (await ask(app, "GET", "/subscribing%2Fada")).status == 404
