"""Whoever shows a token is who its issuer says, by the keys that the issuer has now; and nobody waits for an issuer that hangs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
from joserfc.jwk import OctKey

from kafka_chat.access.decision import KeysNotKnown, Unauthorized
from kafka_chat.access.rights import Action
from kafka_chat.issuers.authority import Authority, open_authority
from kafka_chat.issuers.fetch import FetchFailed, fetch
from kafka_chat.issuers.key_source import QUIET_SECONDS, UNKNOWN_SECONDS
from kafka_chat.readiness import Readiness
from kafka_chat.settings.model import AuthSettings, EveryoneSettings, IssuerSettings, RoleSettings
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.deadlines import HANG_SECONDS
from tests.support.issuer import AUDIENCE, ISS, SECRET, JwksServer, key, open_jwks_server, secret_auth, secret_token, token

if TYPE_CHECKING:
    from kafka_chat.access.identity import Identity

FIRST, SECOND = key("first"), key("second")


def jwks_auth(server: JwksServer) -> AuthSettings:
    return AuthSettings(issuers={"main": IssuerSettings(issuer=ISS, audience=AUDIENCE, jwks_url=server.url)})


async def known(authority: Authority) -> None:
    """Wait until the keys are."""
    with trio.fail_after(HANG_SECONDS):
        for source in authority.sources.values():
            while source.problem:
                await source._done.wait_beyond(source._done.version)


async def identified(authority: Authority, text: str) -> Identity:
    return await authority.identify(text.encode(), "127.0.0.1:1")


def later(authority: Authority) -> None:
    """Have the pause after the last fetch be over."""
    for source in authority.sources.values():
        source._quiet_until -= QUIET_SECONDS


async def test_a_token_says_who_asks_and_what_they_may():
    telemetry = Telemetry()
    async with open_jwks_server(FIRST) as server, open_authority(jwks_auth(server), telemetry) as authority:
        await known(authority)
        identity = await identified(authority, token(FIRST, "ann", chats=["room*"], jti="7"))
    assert (identity.user, identity.issuer, identity.token_id) == ("ann", "main", "7")
    assert identity.may(Action.READ, "room1")
    assert not identity.may(Action.READ, "global")
    assert identity.ends_at is not None


async def test_rights_are_the_token_s_the_roles_and_everybody_s(tmp_path: Path):
    auth = secret_auth(
        tmp_path,
        roles={"staff": RoleSettings(send=("*",), act_as=("guest-*",))},
        everyone=EveryoneSettings(read=("dm.{user}.*",)),
        anonymous=("global",),
    )
    async with open_authority(auth, Telemetry()) as authority:
        await known(authority)
        staff = await identified(authority, secret_token(roles=["staff", "unknown"], chats=["room1"]))
        other = await identified(authority, secret_token("bob"))
        nobody = await authority.identify(None, "127.0.0.1:1")
    assert [staff.may(Action.READ, chat) for chat in ("room1", "dm.ann.bob", "dm.bob.ann")] == [True, True, False]
    assert [one.may(Action.SEND, "room9") for one in (staff, other)] == [True, False]
    assert [staff.may_speak_for(user) for user in ("ann", "guest-7", "bob")] == [True, True, False]
    assert not other.may_speak_for("guest-7")
    assert (nobody.user, nobody.may(Action.READ, "global"), nobody.may(Action.READ, "room1")) == (None, True, False)
    assert not nobody.may_speak_for("")


async def test_issuers_of_one_name_are_told_apart_by_the_audience(tmp_path: Path):
    main = secret_auth(tmp_path).issuers["main"]
    (tmp_path / "other").write_text("of " + SECRET)
    other = IssuerSettings(issuer=ISS, audience="other", secret_file=str(tmp_path / "other"), users=("guest-*",))
    async with open_authority(AuthSettings(issuers={"main": main, "other": other}), Telemetry()) as authority:
        await known(authority)
        by = OctKey.import_key("of " + SECRET)
        assert (await identified(authority, secret_token())).issuer == "main"
        assert (await identified(authority, token(by, "guest-1", algorithm="HS256", aud=["x", "other"]))).issuer == "other"
        for text in (token(by, "ann", algorithm="HS256", aud="other"), token(by, "guest-1", algorithm="HS256")):
            with pytest.raises(Unauthorized):
                await identified(authority, text)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.é.é", "a" * 9000])
async def test_what_is_no_token_is_refused_without_a_look_at_keys(text: str, tmp_path: Path):
    async with open_authority(secret_auth(tmp_path), Telemetry()) as authority:
        with pytest.raises(Unauthorized, match=r"^a valid token is needed$"):
            await identified(authority, text)


@pytest.mark.promise("p-issuer-keys-ready")
async def test_before_the_keys_are_known_nobody_is_told_that_its_token_is_bad():
    async with open_jwks_server(FIRST) as server, trio.open_nursery() as nursery:
        server.hang()
        async with open_authority(jwks_auth(server), Telemetry()) as authority:
            with trio.fail_after(UNKNOWN_SECONDS + HANG_SECONDS):
                with pytest.raises(KeysNotKnown):
                    await identified(authority, token(FIRST))
            problem = "the keys of auth.issuers.main are not known: they have not been read yet"
            assert authority.readiness() == Readiness(ready=False, problems=[problem], notices=[])
            server.go_on()
            await known(authority)
            assert (await identified(authority, token(FIRST))).user == "ann"
        nursery.cancel_scope.cancel()


@pytest.mark.promise("p-issuer-keys-ready")
async def test_an_issuer_that_is_away_at_the_start_keeps_out_its_own_users_alone(tmp_path: Path):
    partner = IssuerSettings(issuer="https://partner.example", audience=AUDIENCE, jwks_url="http://127.0.0.1:1/jwks", users=("partner-*",))
    auth = secret_auth(tmp_path)
    auth = AuthSettings(issuers={**auth.issuers, "partner": partner})
    async with open_authority(auth, Telemetry()) as authority:
        with trio.fail_after(HANG_SECONDS):
            await authority.sources["main"].read_once()
            await authority.sources["partner"].read_once()
        assert (await identified(authority, secret_token())).user == "ann"
        with pytest.raises(KeysNotKnown):
            await identified(authority, token(FIRST, "partner-bob", iss="https://partner.example"))
        found = authority.readiness()
    assert (found.ready, found.problems) == (True, [])
    assert [notice.partition(": ")[0] for notice in found.notices] == ["the keys of auth.issuers.partner are not known"]


@pytest.mark.promise("p-access-unknown-kid")
async def test_a_thousand_unknown_keys_cause_one_request_and_nobody_waits_for_long():
    telemetry = Telemetry()
    async with open_jwks_server(FIRST) as server, open_authority(jwks_auth(server), telemetry) as authority:
        await known(authority)
        good = token(FIRST)
        await identified(authority, good)
        server.hang()
        server.requests = 0
        later(authority)
        refused = 0
        unknown = [token(FIRST, header={"kid": f"no-{number}"}) for number in range(1000)]

        async def ask(text: str) -> None:
            nonlocal refused
            began = trio.current_time()
            with pytest.raises(Unauthorized):
                await identified(authority, text)
            refused += 1
            assert trio.current_time() - began <= UNKNOWN_SECONDS + HANG_SECONDS

        async with trio.open_nursery() as nursery:
            for text in unknown:
                nursery.start_soon(ask, text)
            await trio.lowlevel.checkpoint()
            assert (await identified(authority, good)).user == "ann"  # which does not wait for them
            assert (await identified(authority, token(FIRST, "bob"))).user == "bob"
            assert refused == 0
        assert (refused, server.requests) == (1000, 1)


@pytest.mark.promise("p-access-unknown-kid")
async def test_after_a_fetch_unknown_keys_are_refused_at_once_for_a_while():
    async with open_jwks_server(FIRST) as server, open_authority(jwks_auth(server), Telemetry()) as authority:
        await known(authority)
        server.hang()
        server.requests = 0
        with pytest.raises(Unauthorized):
            await identified(authority, token(SECOND))
        assert server.requests == 0


async def test_a_new_key_is_there_with_the_first_token_that_names_it():
    async with open_jwks_server(FIRST) as server, open_authority(jwks_auth(server), Telemetry()) as authority:
        await known(authority)
        server.keys = [FIRST, SECOND]
        later(authority)
        assert (await identified(authority, token(SECOND))).user == "ann"


@pytest.mark.promise("p-access-key-withdrawn")
async def test_tokens_of_a_key_that_was_taken_out_are_refused_after_the_next_fetch_cached_or_not():
    async with open_jwks_server(FIRST, SECOND) as server, open_authority(jwks_auth(server), Telemetry()) as authority:
        await known(authority)
        cached = token(SECOND)
        await identified(authority, cached)
        server.keys = [FIRST]
        await authority.sources["main"].read_once()
        for text in (cached, token(SECOND, "bob")):
            with pytest.raises(Unauthorized):
                await identified(authority, text)
        assert (await identified(authority, token(FIRST))).user == "ann"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{",
        b"hello\r\n\r\n",
        b"",
    ],
)
@pytest.mark.promise("p-access-keys-kept")
async def test_a_fetch_that_fails_keeps_the_last_good_keys_and_is_logged_once(answer: bytes, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    async with open_jwks_server(FIRST) as server, open_authority(jwks_auth(server), Telemetry()) as authority:
        await known(authority)
        server.answer = answer
        for _ in range(2):
            assert not await authority.sources["main"].read_once()
        assert (await identified(authority, token(FIRST))).user == "ann"
        assert authority.readiness().ready
    assert [line for line in caplog.messages if line.startswith("auth.keys_failed issuer=main")] == caplog.messages
    assert len(caplog.messages) == 1


async def test_a_fetch_is_cancelled_at_once():
    async with open_jwks_server(FIRST) as server:
        server.hang()
        with trio.move_on_after(0.05) as scope:
            await fetch(server.url, None)
        assert scope.cancelled_caught


async def test_nobody_at_the_address_is_told_in_the_system_s_words():
    with pytest.raises(FetchFailed, match="refused"):
        await fetch("http://127.0.0.1:1/jwks", None)


@pytest.mark.promise("p-access-keys-kept", "p-access-key-files")
async def test_a_file_that_is_swapped_by_its_link_is_read_again_and_a_bad_one_is_not_taken(tmp_path: Path):
    auth = secret_auth(tmp_path)
    (tmp_path / "v1").write_text(SECRET)
    (tmp_path / "v2").write_text(SECRET + " and more")
    (tmp_path / "secret").unlink()
    (tmp_path / "secret").symlink_to("v1")
    async with open_authority(auth, Telemetry()) as authority:
        await known(authority)
        old = secret_token()
        await identified(authority, old)
        (tmp_path / "bad").write_text("short")
        for target, good in (("bad", False), ("absent", False), ("v2", True)):
            (tmp_path / "next").symlink_to(target)
            (tmp_path / "next").replace(tmp_path / "secret")
            assert await authority.sources["main"].read_once() == good
            if not good:
                assert (await identified(authority, old)).user == "ann"
        with pytest.raises(Unauthorized):
            await identified(authority, old)


async def test_a_pipe_without_a_writer_does_not_hold_anything_up(tmp_path: Path):
    auth = secret_auth(tmp_path)
    (tmp_path / "secret").unlink()
    os.mkfifo(tmp_path / "secret")
    async with open_authority(auth, Telemetry()) as authority:
        with trio.fail_after(HANG_SECONDS):
            assert not await authority.sources["main"].read_once()


@pytest.mark.promise("p-access-no-token-in-logs")
async def test_no_byte_of_a_token_is_in_a_log_line_a_metric_or_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    telemetry = Telemetry()
    bad = [
        secret_token(aud="other"),
        secret_token(seconds=-1000),
        secret_token("a\nb"),
        secret_token()[:-4] + "AAAA",
        secret_token(header={"kid": "x" * 300}),
        "secretsecret.secretsecret.secretsecret",
    ]
    async with open_authority(secret_auth(tmp_path), telemetry) as authority:
        await known(authority)
        errors = []
        for text in bad:
            with pytest.raises(Unauthorized) as refused:
                await identified(authority, text)
            errors.append(repr(refused.value) + str(refused.value.__cause__) + str(refused.value.__context__))
    seen = "\n".join([*caplog.messages, *errors, telemetry.metrics().decode()])
    assert seen.count("auth.refused") >= len(bad) - 1
    for text in bad:
        for part in text.split("."):
            assert part not in seen
    assert 'kafka_chat_auth_refused_total{issuer="main",reason="audience"} 1.0' in seen
