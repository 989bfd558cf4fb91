"""Every way into the service asks who comes and what they may, before anything is asked of Kafka: the ways are those of the registers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from quart import Blueprint

from kafka_chat.access.decision import CHALLENGE, Need
from kafka_chat.access.identity import EVERYBODY
from kafka_chat.issuers.authority import Authority
from kafka_chat.settings.model import EveryoneSettings, RoleSettings, Settings
from kafka_chat.web.app import create_app
from kafka_chat.web.requests.needs import check_all_declare
from tests.support.fake_service import app_with_service, ask
from tests.support.guarded import SENDING, V1, asked_of_kafka, go, guarded_app, renew, said, status, trying, ways
from tests.support.issuer import secret_auth, secret_token

WAYS = ways()
GUARDED = [way for way in WAYS if way.need is not Need.PUBLIC]
COVERED, DENIED, DENIED_ABSENT, DEFAULT = "room1", "secret", "missing", "global"


def bearer(user: str = "ann", **claims: object) -> dict[str, str]:
    return {"authorization": f"Bearer {secret_token(user, **claims)}"}


def may(chats: list[str]) -> dict[str, object]:
    return {"chats": {"read": chats, "send": chats, "create": chats}}


@pytest.mark.promise("p-public")
def test_public_is_what_tells_nothing_of_chats_and_users():
    public = {way.rule for way in WAYS if way.need is Need.PUBLIC}
    assert public == {
        "/health", "/ready", "/openapi.json", "/docs", "/redoc", "/assets/<path:name>", "/kafka-chat.js",
        "/receive-message/client/<rest:username>", "/receive-messages/user/<rest:username>", "/send-message/chat/<rest:chat>",
    }  # fmt: skip
    only_upgrades = [way for way in WAYS if way.need is Need.PUBLIC and way.names_user]
    assert {way.method for way in only_upgrades} == {"GET", "HEAD"}  # which answer 426 to whoever it is


def test_a_route_that_does_not_say_what_it_needs_stops_the_start():
    app = create_app(Settings())
    check_all_declare(app)
    further = Blueprint("further", __name__)

    @further.get("/further")
    async def further_route() -> str:
        return "everything"

    app.register_blueprint(further)
    with pytest.raises(RuntimeError, match="/further"):
        check_all_declare(app)


@pytest.mark.promise("p-refused-401")
async def test_without_a_token_only_public_ways_are_open(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in WAYS:
        service = renew(app)
        with trying(way):
            before = asked_of_kafka(service)
            answer = await go(app, way, chat=COVERED)
            if way.need is Need.PUBLIC:
                assert status(answer) in (200, 404, 426)
                continue
            assert status(answer) == 401
            assert asked_of_kafka(service) == before
            if answer.close is not None:
                assert answer.close == (4401, "a valid token is needed")
            elif way.method != "HEAD":
                assert answer.headers["www-authenticate"] == CHALLENGE == 'Bearer error="invalid_token"'
                assert answer.json() == {"error": "a valid token is needed", "field": None}


async def test_preflights_are_public(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in WAYS:
        renew(app)
        with trying(way):
            answer = await ask(
                app, "OPTIONS", way.target("ann", None), headers={"access-control-request-method": "POST", "origin": "https://a.example"}
            )
            assert answer.status == 200


@pytest.mark.promise("p-token-user", "p-token-forbidden")
async def test_another_users_name_is_refused(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in GUARDED:
        service = renew(app)
        with trying(way):
            before = asked_of_kafka(service)
            for other in ("bob", "ANN", "ann.bob", "%2A", "a%CC%8Ann"):  # the last is not ann with a combining ring; each is another user
                answer = await go(app, way, user=other, chat=COVERED, headers=bearer("ann", **may(["*"])))
                if way.names_user:
                    assert status(answer) == 403
                    assert asked_of_kafka(service) == before
                elif way.need is not Need.SEND:
                    assert status(answer) in (101, 200)
            if way.need is Need.SEND and way.method != "WebSocket":
                answer = await go(app, way, sender="bob", chat=COVERED, headers=bearer("ann", **may(["*"])))
                assert status(answer) == 403
                assert service.sending.sent == []


async def test_a_user_is_the_same_in_each_form_of_unicode(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in GUARDED:
        renew(app)
        with trying(way):
            if way.names_user:
                answer = await go(app, way, user="Ame%CC%81lie", chat=COVERED, headers=bearer("Amélie", **may(["*"])))
                assert status(answer) in (101, 200)


async def test_chats_are_asked_for_before_they_are_looked_up(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in GUARDED:
        service = renew(app)
        with trying(way):
            answer = await go(app, way, chat=COVERED, headers=bearer(**may([COVERED])))
            assert status(answer) in (101, 200)
            before = asked_of_kafka(service)
            refusals = []
            for chat in (DENIED, DENIED_ABSENT, DEFAULT):
                answer = await go(app, way, chat=chat, headers=bearer(**may([COVERED])))
                if way.names_chat:
                    assert status(answer) == 403
                    refusals.append((said(answer), {name: value for name, value in answer.headers.items() if name != "date"}))
                else:  # its own subscriptions, and leaving; metrics
                    assert status(answer) in (101, 200)
            if way.names_chat and way.method != "message":
                assert asked_of_kafka(service) == before
            assert len(refusals) in (0, 3)
            assert all(refusal == refusals[0] for refusal in refusals)  # it does not tell which chats exist


@pytest.mark.promise("p-rights")
async def test_each_action_needs_its_own_right(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in GUARDED:
        renew(app)
        with trying(way):
            action = {Need.READ: "read", Need.FOLLOW: "read", Need.SEND: "send", Need.CREATE: "create"}.get(way.need)
            if action is None:
                assert status(await go(app, way, headers=bearer())) in (101, 200)  # a valid token is enough
                continue
            others = {name: [COVERED] for name in ("read", "send", "create") if name != action}
            assert status(await go(app, way, chat=COVERED, headers=bearer(chats=others))) == 403
            assert status(await go(app, way, chat=COVERED, headers=bearer(chats={action: [COVERED]}))) in (101, 200)


async def test_a_right_comes_from_a_claim_a_role_or_everyone(tmp_path: Path):
    every = ("*",)
    for auth, claims in (
        (secret_auth(tmp_path, everyone=EveryoneSettings(read=every, send=every, create=every)), {}),
        (secret_auth(tmp_path, roles={"staff": RoleSettings(read=every, send=every, create=every)}), {"roles": ["other", "staff"]}),
    ):
        app, _ = await guarded_app(auth)
        for way in GUARDED:
            with trying(way):
                renew(app)
                assert status(await go(app, way, chat=COVERED, headers=bearer(**claims))) in (101, 200)
                if way.names_chat and claims:
                    assert status(await go(app, way, chat=COVERED, headers=bearer(roles=["other"]))) == 403


async def test_a_back_end_acts_as_others_by_its_own_rights(tmp_path: Path):
    auth = secret_auth(tmp_path, roles={"backend": RoleSettings(read=("room*",), send=("room*",), act_as=("guest-*",))})
    app, _ = await guarded_app(auth)
    for way in GUARDED:
        service = renew(app)
        with trying(way):
            backend = bearer("crm", roles=["backend"])
            assert status(await go(app, way, user="guest-1", chat=COVERED, headers=backend)) in (101, 200)
            if way.names_user:
                assert status(await go(app, way, user="ann", chat=COVERED, headers=backend)) == 403
            if way.names_chat:
                assert status(await go(app, way, user="guest-1", chat=DENIED, headers=backend)) == 403
            if service.sending.sent:
                assert {sent[1] for sent in service.sending.sent} == {"guest-1"}
                assert set(service.sending.sent_by) == {"crm"}  # in the record's header: whose token it was


@pytest.mark.promise("p-never-anonymous")
async def test_nobody_reads_what_anonymous_does_not_cover(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path, anonymous=(COVERED,)))
    for way in GUARDED:
        service = renew(app)
        with trying(way):
            answer = await go(app, way, chat=COVERED)
            if way.need is Need.READ:
                assert status(answer) in (101, 200)
                assert all(identity.user is None for identity in service.identities)
                before = asked_of_kafka(service)
                assert [status(await go(app, way, chat=chat)) for chat in (DENIED, DENIED_ABSENT)] == [401, 401]
            else:
                before = asked_of_kafka(service)
                assert status(answer) == 401
            # A bad token does not become nobody's.
            assert status(await go(app, way, chat=COVERED, headers={"authorization": "Bearer a.b.c"})) == 401
            assert asked_of_kafka(service) == before


@pytest.mark.parametrize("user", ["*", "a.*", "ann.bob"])
async def test_a_user_whose_name_is_no_plain_one_gets_nothing_from_a_pattern_with_it(tmp_path: Path, user: str):
    mine = ("dm.{user}.*",)
    app, _ = await guarded_app(secret_auth(tmp_path, everyone=EveryoneSettings(read=mine, send=mine, create=mine)))
    for way in GUARDED:
        renew(app)
        with trying(way):
            if way.names_chat:
                name = user.replace("*", "%2A")
                for chat in ("dm.ann.carl", "dm.ann.bob.carl", "dm.a.carl", "dm."):
                    assert status(await go(app, way, user=name, chat=chat, headers=bearer(user))) == 403
                assert status(await go(app, way, user="ann", chat="dm.ann.carl", headers=bearer("ann"))) in (101, 200)


@pytest.mark.promise("p-token-later")
async def test_while_the_keys_are_not_known_clients_are_asked_to_come_again(tmp_path: Path):
    auth = secret_auth(tmp_path)
    app, first = await guarded_app(auth)
    authority = Authority(auth, first.telemetry)  # which has read nothing
    for way in GUARDED:
        service = renew(app, authority.identify)
        with trying(way):
            before = asked_of_kafka(service)
            answer = await go(app, way, chat=COVERED, headers=bearer(**may([COVERED])))
            assert status(answer) == 503
            assert asked_of_kafka(service) == before
            if answer.close is not None:
                assert answer.close[0] == 1013
            elif way.method != "HEAD":
                assert int(answer.headers["retry-after"]) > 0


async def test_who_asks_goes_with_the_place_that_is_given(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in GUARDED:
        service = renew(app)
        with trying(way):
            await go(app, way, chat=COVERED, headers=bearer(**may([COVERED])))
            if way.method in ("WebSocket", "message", V1) or way.rule.endswith("/events"):
                assert [identity.user for identity in service.identities] == ([] if way.method == "HEAD" else ["ann"])
                assert all(identity.ends_at for identity in service.identities)


async def test_with_access_off_everybody_may_do_everything_and_tokens_are_not_looked_at():
    app, service = app_with_service(Settings(sending=SENDING))
    for way in GUARDED:
        assert status(await go(app, way, user="bob", chat=DENIED, headers=bearer())) in (101, 200)
    assert set(service.identities) == {EVERYBODY}


@pytest.mark.promise("p-denied-listed")
async def test_a_list_of_subscriptions_shows_which_of_them_may_not_be_read(tmp_path: Path):
    app, service = await guarded_app(secret_auth(tmp_path))
    service.subscriptions.followed["ann"] = {COVERED, DENIED}
    answer = await ask(app, "GET", "/subscribing/ann", headers=bearer(chats=[COVERED]))
    listed = {one["chat"]: (one["exists"], one.get("denied", False)) for one in json.loads(answer.body)["chats"]}
    assert listed == {"global": (None, True), COVERED: (False, False), DENIED: (None, True)}


@pytest.mark.promise("p-leaving")
async def test_leaving_needs_no_right(tmp_path: Path):
    app, service = await guarded_app(secret_auth(tmp_path))
    service.subscriptions.followed["ann"] = {DENIED}
    assert (await ask(app, "DELETE", f"/subscribing/ann?topic={DENIED}", headers=bearer())).status == 200
    assert service.subscriptions.followed["ann"] == set()


@pytest.mark.promise("p-token-no-event")
async def test_an_event_stream_is_refused_by_a_status_that_ends_an_event_source(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    stream = "/receive-message/client/ann/events"
    for target, headers, expected in ((stream, {}, 401), (stream + "?chat=secret", bearer(), 403)):
        answer = await ask(app, "GET", target, headers={"accept": "text/event-stream", **headers})
        assert (answer.status, answer.headers["content-type"]) == (expected, "application/json")


@pytest.mark.promise("p-history-private")
async def test_pages_are_kept_by_nobody_and_are_unchanged_only_for_who_may_read_them(tmp_path: Path):
    app, service = await guarded_app(secret_auth(tmp_path))
    service.history.answer = replace(service.history.answer, closed=True)
    answer = await ask(app, "GET", "/history/room1", headers=bearer(chats=["room1"]))
    assert (answer.status, answer.headers["cache-control"]) == (200, "private, no-cache")
    known = {"if-none-match": answer.headers["etag"]}
    unchanged = await ask(app, "GET", "/history/room1", headers={**bearer(chats=["room1"]), **known})
    assert (unchanged.status, unchanged.headers["cache-control"]) == (304, "private, no-cache")
    assert (await ask(app, "GET", "/history/room1", headers={**bearer(), **known})).status == 403
    assert (await ask(app, "GET", "/history/room1", headers=known)).status == 401


@pytest.mark.promise("p-token-no-store")
async def test_no_cache_keeps_what_one_token_is_answered(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    for way in GUARDED:
        if way.method in ("WebSocket", V1, "message"):
            continue
        renew(app)
        with trying(way):
            for headers in ({}, bearer(), bearer(**may([COVERED]))):
                kept = (await go(app, way, chat=COVERED, headers=headers)).headers["cache-control"]
                assert "no-store" in kept or "no-cache" in kept


@pytest.mark.promise("p-token-wait")
async def test_a_page_waits_no_longer_than_its_token_lasts(tmp_path: Path):
    app, service = await guarded_app(secret_auth(tmp_path, leeway_seconds=0))
    for seconds in (20, 600):
        wait = {"prefer": "wait=50", **bearer(seconds=seconds, chats=[COVERED])}
        assert (await ask(app, "GET", "/history/room1", headers=wait)).status == 200
    first, second = (asked.wait_seconds for asked in service.history.asked)
    assert 0 < first <= 20
    assert second == 50
