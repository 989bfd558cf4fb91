"""With an issuer in the settings each way into the running service opens what a token covers, and nothing that it does not."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import websockets.trio.client
from websockets.typing import Subprotocol

from kafka_chat.access.decision import Need
from kafka_chat.access.token_shape import TOKEN_BYTES
from kafka_chat.delivery.session.ops import OPS
from kafka_chat.settings.model import Settings
from tests.support.brokers import Broker
from tests.support.calls import running
from tests.support.chats import Chats, message
from tests.support.clients import Opcode, close_code, http, open_raw, receive_path, refusal
from tests.support.events_client import open_events
from tests.support.issuer import AUDIENCE, ISS, SECRET, secret_token
from tests.support.v1_client import open_v1

COVERED, DENIED, ABSENT = "room1", "secret", "absent"
BACKEND = {"read": ["*"], "send": ["*"], "create": ["*"], "act_as": ["*"]}


def guarded(broker: Broker, chats: Chats, folder: Path, **more: object) -> Settings:
    (folder / "secret").write_text(SECRET)
    issuer = {"issuer": ISS, "audience": AUDIENCE, "secret_file": str(folder / "secret"), "roles_claim": "roles"}
    roles = {"backend": BACKEND}
    return chats.settings_for(broker, auth__issuers={"main": issuer}, auth__roles=roles, sending__enabled=True, **more)


def bearer(user: str = "ann", **claims: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret_token(user, **claims)}"}


def v1_protocols(user: str = "ann", **claims: object) -> tuple[str, str]:
    return ("kafka-chat.v1", f"bearer.{secret_token(user, **claims)}")


ANN = {"chats": {"read": [COVERED], "send": [COVERED]}}


@pytest.mark.promise("p-denied-subscription")
async def test_a_subscription_beyond_the_rights_stays_stored_and_is_left_out(broker: Broker, chats: Chats, tmp_path: Path) -> None:
    for name in (COVERED, DENIED, "global"):
        broker.create_topic(chats.topic(name))
    async with running(guarded(broker, chats, tmp_path)) as server:
        backend = bearer("crm", roles=["backend"])
        # A back end's own rights count for its call, and the user's at delivery.
        answer = await http(server.url, "POST", f"/subscribing/ann?topic={COVERED}&topic={DENIED}", headers=backend)
        assert [one.get("denied") for one in answer.json()["chats"]] == [None, None, None]
        answer = await http(server.url, "GET", "/subscribing/ann", headers=bearer(**ANN))
        listed = {one["chat"]: (one["exists"], one.get("denied")) for one in answer.json()["chats"]}
        assert listed == {"global": (None, True), COVERED: (True, None), DENIED: (None, True)}

        async with (
            open_v1(server.url, "ann", subprotocols=v1_protocols(**ANN)) as v1,
            open_events(server.url, "ann", headers={name.lower(): value for name, value in bearer(**ANN).items()}) as events,
        ):
            assert v1.subprotocol == "kafka-chat.v1"
            hello = await v1.control("hello")
            assert (hello["user_from"], hello["chats"], hello["denied"]) == ("token", [COVERED], ["global", DENIED])
            await v1.control("live")
            [hello_event] = await events.take(1)
            assert hello_event.meta["denied"] == ["global", DENIED]
            for name in (DENIED, "global", COVERED):
                broker.produce(chats.topic(name), message(f"in {name}"))
            assert await v1.texts(1) == [f"in {COVERED}"]
            assert await events.texts(1) == [f"in {COVERED}"]
            # While they are open, their back end subscribes the user: to a chat that is covered it is told, to another not.
            await http(server.url, "DELETE", f"/subscribing/ann?topic={COVERED}", headers=backend)
            assert (await v1.control("unsubscribed"))["chat"] == COVERED
            await http(server.url, "POST", f"/subscribing/ann?topic=absent2&topic={COVERED}", headers=backend)
            assert (await v1.control("subscribed"))["chat"] == COVERED
            assert not any(frame["meta"].get("chat") in (DENIED, "absent2", "global") for frame in v1.frames)


@pytest.mark.promise("p-right-before-lookup")
async def test_what_exists_is_not_told_to_who_may_not_read_it(broker: Broker, chats: Chats, tmp_path: Path) -> None:
    broker.create_topic(chats.topic(DENIED))
    async with running(guarded(broker, chats, tmp_path)) as server:
        ann = bearer(**ANN)
        body = {"sender": "ann", "text": "hello"}
        for method, target, more in (
            ("GET", "/history/{}", {}),
            ("POST", "/subscribing/ann?topic={}", {}),
            ("POST", "/subscribing/ann/{}", {}),
            ("POST", "/send-message/chat/{}", {"json_body": body}),
            ("GET", "/receive-message/client/ann/events?chat={}", {}),
        ):
            answers = [await http(server.url, method, target.format(chat), headers=ann, **more) for chat in (DENIED, ABSENT)]  # type: ignore[arg-type]
            assert [answer.status for answer in answers] == [403, 403]
            assert answers[0].body == answers[1].body
        for path in ("/receive-message/client/ann?chat={}", "/receive-messages/user/ann?chat={}", "/subscribing/ann?topic={}"):
            refusals = [await refusal(server.url, path.format(chat), headers=ann) for chat in (DENIED, ABSENT)]
            assert [answer.status for answer in refusals] == [403, 403]
            assert refusals[0].body == refusals[1].body
        ends = []
        for chat in (DENIED, ABSENT):
            async with open_v1(server.url, "ann", ("chat", chat), subprotocols=v1_protocols(**ANN)) as v1:
                ends.append(await v1.closed())
        assert ends[0] == ends[1]
        assert ends[0].code == 4403


@pytest.mark.promise("p-sender-header")
async def test_a_record_says_whose_token_sent_it(broker: Broker, chats: Chats, tmp_path: Path) -> None:
    broker.create_topic(chats.topic(COVERED))
    async with running(guarded(broker, chats, tmp_path)) as server:
        async with open_v1(server.url, "ann", ("chat", COVERED), subprotocols=v1_protocols(**ANN)) as v1:
            await v1.control("live")
            target = f"/send-message/chat/{COVERED}"
            for by, sender in ((bearer(**ANN), "ann"), (bearer("crm", roles=["backend"]), "Amélie")):
                answer = await http(server.url, "POST", target, headers=by, json_body={"sender": sender, "text": f"by {sender}"})
                assert answer.status == 200
            await v1.texts(2)
            await v1.say('{"op":"send","chat":"room1","text":"by an op"}')
            await v1.texts(1)
            sent = {frame["text"]: frame["meta"]["headers"] for frame in v1.frames if "text" in frame}
        assert sent == {
            "by ann": [["kafka_chat-user", "ann"]],
            "by Amélie": [["kafka_chat-user", "crm"]],
            "by an op": [["kafka_chat-user", "ann"]],
        }


@pytest.mark.promise("p-token-size")
async def test_a_token_of_eight_kibibytes_comes_through_the_server_on_each_way(embedded: Broker, chats: Chats, tmp_path: Path) -> None:
    async with running(guarded(embedded, chats, tmp_path, auth__query=True)) as server:
        little = len(secret_token(**ANN, padding=""))
        text = secret_token(**ANN, padding="x" * ((TOKEN_BYTES - little) * 3 // 4 - 2))
        assert TOKEN_BYTES - 8 <= len(text) <= TOKEN_BYTES
        assert (await http(server.url, "GET", "/subscribing/ann", headers={"Authorization": f"Bearer {text}"})).status == 200
        assert (await http(server.url, "GET", f"/subscribing/ann?access_token={text}")).status == 200
        async with open_v1(server.url, "ann", subprotocols=("kafka-chat.v1", f"bearer.{text}")) as v1:
            assert (await v1.control("hello"))["user_from"] == "token"
        address = "ws" + server.url.removeprefix("http") + receive_path("ann")
        protocols = [Subprotocol("kafka-chat.plain"), Subprotocol(f"bearer.{text}")]
        async with websockets.trio.client.connect(address, subprotocols=protocols, proxy=None) as bare:
            assert bare.subprotocol == "kafka-chat.plain"
        too_long = {"Authorization": f"Bearer {text}xxxxxxxx"}
        assert (await http(server.url, "GET", "/subscribing/ann", headers=too_long)).status == 401


@pytest.mark.promise("p-anonymous")
async def test_without_a_token_the_name_in_the_path_is_nobodys(broker: Broker, chats: Chats, tmp_path: Path) -> None:
    for name in (COVERED, DENIED, "global"):
        broker.create_topic(chats.topic(name))
    settings = guarded(broker, chats, tmp_path, auth__anonymous=["global", COVERED])
    async with running(settings) as server:
        backend = bearer("crm", roles=["backend"])
        await http(server.url, "POST", f"/subscribing/ann?topic={COVERED}&topic={DENIED}", headers=backend)
        async with open_v1(server.url, "ann") as v1:
            hello = await v1.control("hello")
            assert (hello["user_from"], hello["chats"], hello["denied"]) == ("anonymous", ["global"], [])
            await v1.control("live")
            await http(server.url, "POST", "/subscribing/ann?topic=room2", headers=backend)
            for name in (DENIED, COVERED, "global"):
                broker.produce(chats.topic(name), message(f"in {name}"))
            assert await v1.texts(1) == ["in global"]
            assert (await v1.op(op="subscribe", chat=COVERED))["code"] == 401
        async with open_v1(server.url, "ann", ("chat", COVERED)) as v1:
            assert (await v1.control("hello"))["chats"] == [COVERED]
        assert (await http(server.url, "GET", f"/history/{COVERED}")).status == 200
        for target in (f"/history/{DENIED}", f"/history/{ABSENT}", "/subscribing/ann"):
            assert (await http(server.url, "GET", target)).status == 401


async def test_each_op_of_the_table_asks_for_its_right_before_it_looks(embedded: Broker, chats: Chats, tmp_path: Path) -> None:
    for name in (COVERED, DENIED, "global"):
        embedded.create_topic(chats.topic(name))
    async with running(guarded(embedded, chats, tmp_path, auth__anonymous=["global"])) as server:
        async with open_v1(server.url, "ann", subprotocols=v1_protocols(**ANN)) as v1:
            await v1.control("live")
            for op, kind in OPS.items():
                if op == "auth":
                    continue  # its token says it
                covered, *denied = [await v1.op(op=op, chat=chat, text="hello") for chat in (COVERED, DENIED, ABSENT)]
                assert covered["type"] != "error", op
                if kind.need in (Need.PUBLIC, Need.USER):
                    assert all(answer.get("code") != 403 for answer in denied), op
                else:
                    assert [answer["code"] for answer in denied] == [403, 403], op
                    assert denied[0] == denied[1], op
        async with open_v1(server.url, "ann") as v1:
            await v1.control("live")
            for op, kind in OPS.items():
                if op != "auth":
                    answer = await v1.op(op=op, chat="global", text="hello")
                    assert answer.get("code") == (None if kind.need is Need.PUBLIC else 401), op


async def test_every_open_stream_ends_with_its_token(embedded: Broker, chats: Chats, tmp_path: Path) -> None:
    everyone = {"read": ["*"], "send": ["*"]}
    async with (
        running(guarded(embedded, chats, tmp_path, auth__everyone=everyone, auth__leeway_seconds=0)) as server,
        AsyncExitStack() as open_,
    ):
        shown = bearer(seconds=3)
        v1 = await open_.enter_async_context(open_v1(server.url, "ann", subprotocols=v1_protocols(seconds=3)))
        sockets = []
        for path in (receive_path("ann"), "/subscribing/ann", "/send-message/chat/global"):
            client = await open_.enter_async_context(open_raw(server.url))
            assert (await client.handshake(path, headers=shown)).status == 101
            sockets.append(client)
        events = await open_.enter_async_context(open_events(server.url, "ann", headers=shown))
        assert (await v1.closed()).code == 4401
        for client in sockets:
            while (frame := await client.read_frame()) is not None and frame.opcode is not Opcode.CLOSE:
                pass
            assert frame is not None
            assert close_code(frame)[0] == 4401
        ended = await events.read_to_end()
        assert ended[-1].name == "reconnect"
        assert ended[-1].meta["cursor"]
