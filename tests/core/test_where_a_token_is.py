"""A token may be in a header, a subprotocol, a cookie or the address; wherever a wrong one is, it is refused, and nothing of it is told."""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import OctKey

from kafka_chat.access.decision import Need
from kafka_chat.settings.model import AccessSettings, AuthSettings
from kafka_chat.telemetry.events import LINES_A_SECOND
from kafka_chat.web.server.access_log import PlainAtoms
from tests.support.fake_service import Answer, ask
from tests.support.guarded import V1, Way, asked_of_kafka, go, guarded_app, renew, said, status, trying, ways
from tests.support.issuer import SECRET, secret_auth, secret_token, token

GUARDED = [way for way in ways() if way.need is not Need.PUBLIC]
SOCKETS = [way for way in GUARDED if way.method in ("WebSocket", V1, "message")]
ROOM = "room1"
PAGE = "https://chat.example"
LISTED = AccessSettings(origins=(PAGE,))
COOKIE = "chat_token"
EVERYTHING = {"chats": {"read": ["*"], "send": ["*"], "create": ["*"]}}


def everywhere(folder: Path) -> AuthSettings:
    return secret_auth(folder, cookie=COOKIE, query=True)


@dataclass(frozen=True)
class Shown:
    """A token on its way: what `go` takes."""

    headers: dict[str, str] = field(default_factory=dict)
    subprotocols: tuple[str, ...] = ()
    query: str = ""


def in_header(text: str, scheme: str = "Bearer") -> Shown:
    return Shown(headers={"authorization": f"{scheme} {text}"})


def in_subprotocol(text: str) -> Shown:
    return Shown(subprotocols=(f"bearer.{text}",))


def in_cookie(text: str) -> Shown:
    return Shown(headers={"cookie": f"theme=dark; {COOKIE}={text}"})


def in_address(text: str) -> Shown:
    return Shown(query=f"access_token={text}")


def places(way: Way) -> list:
    return [in_header, in_cookie, in_address, *([in_subprotocol] if way in SOCKETS else [])]


async def visit(app, way: Way, shown: Shown) -> Answer:
    return await go(app, way, chat=ROOM, headers=shown.headers, subprotocols=shown.subprotocols, query=shown.query)


@pytest.mark.promise("p-token-address")
async def test_a_good_token_is_taken_from_each_place(tmp_path: Path):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    good = secret_token(**EVERYTHING)
    for way in GUARDED:
        for place in places(way):
            with trying(way):
                service = renew(app)
                answer = await visit(app, way, place(good))
                assert status(answer) in (101, 200), place
                if way in SOCKETS:
                    assert service.identities[0].user == "ann"
                if place is in_subprotocol:  # the answer names the first one, which is not the token
                    assert answer.subprotocol == (V1 if way.method == V1 else "kafka-chat.plain")


@pytest.mark.promise("p-token-header")
async def test_the_scheme_may_be_written_in_any_case(tmp_path: Path):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert (await ask(app, "GET", "/subscribing/ann", headers=in_header(secret_token(), scheme).headers)).status == 200
    for other in ("Basic YW5uOnNlY3JldA==", "Digest x", "Bearer", ""):
        assert (await ask(app, "GET", "/subscribing/ann", headers={"authorization": other})).status == 401


async def test_places_that_the_settings_do_not_name_are_not_looked_at(tmp_path: Path):
    app, _ = await guarded_app(secret_auth(tmp_path))
    good = secret_token(**EVERYTHING)
    for way in GUARDED:
        for place in (in_cookie, in_address):
            if place is in_address and way.rule.startswith("/subscribing/<rest"):
                continue  # which refuses a parameter that it does not know
            with trying(way):
                service = renew(app)
                assert status(await visit(app, way, place(good))) == 401
                assert asked_of_kafka(service) == asked_of_kafka(renew(app))


@pytest.mark.promise("p-token-explicit")
async def test_an_explicit_token_wins_over_the_cookie(tmp_path: Path):
    app, service = await guarded_app(everywhere(tmp_path), access=LISTED)
    bob, ann = secret_token("bob"), secret_token("ann")
    for explicit in (in_header, in_address):
        shown = explicit(ann)
        answer = await ask(
            app,
            "GET",
            f"/subscribing/ann?{shown.query}".rstrip("?"),
            headers={**in_cookie(bob).headers, **shown.headers},
        )
        assert answer.status == 200
    for way in SOCKETS:
        with trying(way):
            service = renew(app)
            shown = in_subprotocol(secret_token(**EVERYTHING))
            answer = await go(app, way, chat=ROOM, headers=in_cookie(bob).headers, subprotocols=shown.subprotocols)
            assert status(answer) == 101
            assert service.identities[0].user == "ann"
    # A bad explicit one is not made good by the cookie.
    assert (await ask(app, "GET", "/subscribing/ann", headers={**in_cookie(ann).headers, **in_header("a.b.c").headers})).status == 401


async def test_two_different_explicit_tokens_are_refused_and_the_same_one_twice_is_one(tmp_path: Path):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    one, other = secret_token(**EVERYTHING), secret_token(**EVERYTHING, jti="2")
    for way in GUARDED:
        with trying(way):
            twice = Shown(headers=in_header(one).headers, query=in_address(other).query)
            service = renew(app)
            assert status(await visit(app, way, twice)) == 400
            assert service.admitted == []
            same = Shown(headers=in_header(one).headers, query=in_address(one).query)
            assert status(await visit(app, way, same)) in (101, 200)


@pytest.mark.promise("p-token-subprotocol")
async def test_a_token_in_a_subprotocol_is_there_once_and_beside_another(tmp_path: Path):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    good = secret_token(**EVERYTHING)
    for way in SOCKETS:
        target = way.target("ann", ROOM)
        for offers in ([f"bearer.{good}"], ["other", f"bearer.{good}"], ["kafka-chat.plain", f"bearer.{good}", f"bearer.{good}"]):
            answer = await ask(app, "GET", target, websocket=True, subprotocols=offers)
            assert answer.status == 400
            assert good not in answer.body.decode()
        answer = await ask(app, "GET", target, websocket=True, subprotocols=["kafka-chat.plain", "bearer."])
        assert answer.status == 401
    [first, *_] = [way for way in SOCKETS if way.method == V1]
    answer = await ask(app, "GET", first.target("ann", None), websocket=True, subprotocols=[V1, "bearer.a", "bearer.b"])
    assert answer.close is not None
    assert answer.close[0] == 4400


@pytest.mark.promise("p-token-cookie")
@pytest.mark.parametrize(
    ("headers", "trusted"),
    [
        ({}, True),  # no browser
        ({"origin": PAGE}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": PAGE + ".evil.example"}, False),
        ({"origin": PAGE.upper()}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": ""}, False),
    ],
    ids=str,
)
async def test_a_cookie_counts_only_from_pages_that_are_listed(tmp_path: Path, headers: dict[str, str], *, trusted: bool):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    cookie = in_cookie(secret_token(**EVERYTHING)).headers
    for way in GUARDED:
        with trying(way):
            service = renew(app)
            got = status(await go(app, way, chat=ROOM, headers={**cookie, **headers}))
            assert (got in (101, 200)) is trusted
            if not trusted:
                assert got in (401, 403)
                assert asked_of_kafka(service) == asked_of_kafka(renew(app))


async def test_a_cookie_that_is_there_with_two_values_is_refused(tmp_path: Path):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    both = f"{COOKIE}={secret_token('ann')}; {COOKIE}={secret_token('ann', jti='2')}"
    assert (await ask(app, "GET", "/subscribing/ann", headers={"cookie": both})).status == 400
    assert (await ask(app, "GET", "/subscribing/ann", headers={"cookie": f"{COOKIE}="})).status == 401


@pytest.mark.promise("p-cors-credentials")
async def test_pages_may_send_the_cookie_and_only_those_that_are_listed(tmp_path: Path):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    for headers, answered in (({"origin": PAGE}, True), ({"origin": "https://evil.example"}, False), ({}, False)):
        for method, more in (("OPTIONS", asks), ("GET", {}), ("GET", in_cookie("a.b.c").headers)):
            answer = await ask(app, method, "/subscribing/ann", headers={**headers, **more})
            assert answer.headers.get("access-control-allow-credentials") == ("true" if answered else None)
            allowed = answer.headers.get("access-control-allow-headers")
            if answered and method == "OPTIONS":  # by name: with credentials * is no more than a name
                assert allowed == "Accept, Authorization, Content-Type, If-None-Match, Last-Event-ID, Prefer"
            else:
                assert allowed is None
    app, _ = await guarded_app(secret_auth(tmp_path), access=LISTED)  # no cookie: no credentials
    answer = await ask(app, "OPTIONS", "/subscribing/ann", headers={"origin": PAGE, **asks})
    assert "access-control-allow-credentials" not in answer.headers


def wrong_tokens() -> dict[str, str]:
    """Return tokens that each have one fault, by what it is."""
    good = secret_token(**EVERYTHING)
    header, payload, signature = good.split(".")

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()

    def signed(**more: object) -> str:
        """Return the good token with more in its header; a library would not write that."""
        text = f"{part({'alg': 'HS256', **more})}.{payload}"
        return f"{text}.{part(hmac.digest(SECRET.encode(), text.encode(), 'sha256'))}"

    return {
        "empty": "",
        "no segments": "secret",
        "a segment too few": f"{header}.{payload}",
        "five segments, as of JWE": f"{good}.{payload}.{payload}",
        "over 8 KiB": f"{header}.{part(b'x' * 7000)}.{signature}",
        "padding": f"{header}=.{payload}.{signature}",
        "no signature": f"{header}.{payload}.",
        "alg none": f"{part({'alg': 'none', 'typ': 'JWT'})}.{payload}.{signature}",  # CVE-2015-9235
        "alg nOnE": f"{part({'alg': 'nOnE'})}.{payload}.{signature}",  # CVE-2022-23540
        "another algorithm": token(OctKey.import_key(SECRET), algorithm="HS512", **EVERYTHING),
        "another's payload": f"{header}.{part({'sub': 'ann'})}.{signature}",
        "another's key": token(OctKey.import_key(SECRET * 2), algorithm="HS256", **EVERYTHING),
        "a bit of the signature": good[:-3] + ("AAA" if not good.endswith("AAA") else "BBB"),
        "crit": signed(crit=["exp"]),  # CVE-2025-59420
        "b64": signed(b64=True),
        "a key in the header": signed(jwk={"kty": "oct", "k": part(SECRET.encode())}),  # CVE-2018-0114
        "a key's address": signed(jku="http://127.0.0.1/"),
        "cty": signed(cty="JWT"),
        "typ": signed(typ="secevent+jwt"),
        "a kid that is no text": signed(kid=7),
        "a kid that is very long": signed(kid="k" * 300),
        "expired": secret_token(seconds=-60, iat=1.0, exp=2.0, **EVERYTHING),
        "from the future": secret_token(iat=4e9, exp=4e9 + 60, **EVERYTHING),
        "for ever": secret_token(exp=4e9, **EVERYTHING),
        "no exp": secret_token(exp=None, **EVERYTHING),
        "exp is text": secret_token(exp="tomorrow", **EVERYTHING),
        "another audience": secret_token(aud="other", **EVERYTHING),
        "another issuer": secret_token(iss="https://evil.example", **EVERYTHING),
        "nobody": secret_token(sub="", **EVERYTHING),
        "a user that is no text": secret_token(sub=7, **EVERYTHING),
        "a user with a line end": secret_token(sub="an\nn", **EVERYTHING),
        "a bad pattern": secret_token(chats=["*room"]),
        "bad chats": secret_token(chats={"admin": ["*"]}),
    }


WRONG = wrong_tokens()


@pytest.fixture
def all_log_lines() -> Iterator[list[str]]:
    """What is logged at any level, tracebacks included."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter("%(levelname)s %(message)s").format(record))

    root, handler = logging.getLogger(), Keep(level=logging.NOTSET)
    levels = {name: logging.getLogger(name).level for name in ("", "kafka_chat", "quart.app", "hypercorn.error")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def pieces(text: str) -> list[str]:
    """Return what of a token is secret enough to be looked for."""
    return [piece for piece in text.split(".") if len(piece) >= 6]


@pytest.mark.promise("p-token-refused")
@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_token_is_refused_on_each_way_and_in_each_place(tmp_path: Path, what: str, all_log_lines: list[str]):
    app, first = await guarded_app(everywhere(tmp_path), access=LISTED)
    text = WRONG[what]
    answers: set[object] = set()
    number = list(WRONG).index(what)
    for at, way in enumerate(GUARDED):
        possible = places(way)
        # Each on each way, in one of the places; and each in each place, on one way: all combinations would take long.
        for place in possible if not (at + number) % len(GUARDED) else [possible[(at + number) % len(possible)]]:
            with trying(way):
                service = renew(app)
                answer = await visit(app, way, place(text))
                assert status(answer) == 401
                assert asked_of_kafka(service) == asked_of_kafka(renew(app))
                answers.add(said(answer))
                assert not any(piece in f"{answer}" for piece in pieces(text))
    assert answers == {b'{"error":"a valid token is needed","field":null}', (4401, "a valid token is needed")}  # why is for the log
    assert sum("auth.refused" in line for line in all_log_lines) >= LINES_A_SECOND  # of one reason; more only where it takes longer
    written = "\n".join([*all_log_lines, first.telemetry.metrics().decode()])
    assert "Traceback" not in written
    assert not any(piece in written for piece in pieces(text))


@pytest.mark.promise("p-token-untold")
def test_an_access_log_has_no_token_whatever_its_format():
    good = secret_token()
    headers = {
        "authorization": f"Bearer {good}",
        "cookie": f"a=b; {COOKIE}={good}",
        "referer": f"https://chat.example/?access_token=it.is.bad&x=1#{good}",
        "sec-websocket-protocol": f"kafka-chat.v1, bearer.{good}",
    }
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "http_version": "1.1",
        "path": "/history/room1",
        "raw_path": b"/history/room1",
        "query_string": f"limit=5&access_token={good}&my_access_token=mine&access_token=it.is.bad".encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
    }
    atoms = PlainAtoms(scope, None, 0.1)  # type: ignore[arg-type]
    text = json.dumps(dict(atoms))
    assert atoms["R"] == "GET /history/room1?limit=5&access_token=***&my_access_token=mine&access_token=*** 1.1"
    assert not any(piece in text for piece in [*pieces(good), "it.is.bad"])


_NAMES = st.sampled_from(["alg", "kid", "typ", "iss", "aud", "sub", "exp", "iat", "chats", "crit"])
_PLAIN = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
_JSON = st.recursive(_PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=6)
_SEGMENT = st.one_of(
    st.text("AZaz09-_", max_size=12),
    st.text(max_size=8),
    _JSON.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()),
)
_TEXT = st.one_of(
    st.lists(_SEGMENT, min_size=1, max_size=4).map(".".join),
    st.text(max_size=40),
    st.builds(
        lambda good, at, put: good[: at % len(good)] + put + good[at % len(good) + 1 :],
        st.just(WRONG["expired"]),
        st.integers(0, 10_000),
        st.text(max_size=2),
    ),
)


async def test_whatever_stands_in_a_tokens_place_is_refused_without_a_failure(tmp_path: Path, all_log_lines: list[str]):
    app, _ = await guarded_app(everywhere(tmp_path), access=LISTED)
    seen: list[tuple[Way, str, Shown]] = []

    @settings(max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_TEXT, st.sampled_from(GUARDED), st.data())
    def collect(text: str, way: Way, data: st.DataObject) -> None:
        # As the bytes of a header come; one with a line end or a NUL comes from no server.
        latin = "".join(one for one in text.encode("utf-8", "replace").decode("latin-1") if one not in "\r\n\0")
        place = data.draw(st.sampled_from(places(way)))
        shown = place(latin)
        if place is in_address:
            shown = Shown(query="access_token=" + "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "replace")))
        seen.append((way, place.__name__, shown))

    collect()
    for way, place, shown in seen:
        with trying(way):
            service = renew(app)
            answer = await visit(app, way, shown)
            assert status(answer) in (400, 401), (place, shown)
            assert asked_of_kafka(service) == asked_of_kafka(renew(app))
    assert not any("Traceback" in line or "request.failed" in line for line in all_log_lines)
