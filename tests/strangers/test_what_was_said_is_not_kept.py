"""An idle connection keeps nothing of what its client has said: the head of its request may have a token in it."""

from __future__ import annotations

import gc
from types import CoroutineType

import trio.testing

from tests.edges.small_app import PATH, serving_small
from tests.support.raw_client import open_raw

TOKEN = "c2VjcmV0-LWFzLWEtdG9rZW4"


def has_token(value: object) -> bool:
    return (isinstance(value, str) and TOKEN in value) or (isinstance(value, bytes | bytearray) and TOKEN.encode() in value)


def kept_in_locals() -> list[str]:
    """Return the coroutines of ours that hold the token in a local variable while they wait."""
    # By their very type: `isinstance` would look behind weak proxies of other tests, to objects that are gone.
    objects = [one for one in gc.get_objects() if type(one) is CoroutineType]
    frames = [(one.__qualname__, one.cr_frame) for one in objects if one.cr_frame is not None]
    ours = [(name, frame) for name, frame in frames if frame.f_globals.get("__name__", "").startswith("kafka_chat")]
    assert ours
    return [name for name, frame in ours if any(map(has_token, frame.f_locals.values()))]


async def test_a_websocket_that_waits_has_no_token_in_hand():
    async with serving_small() as served, open_raw(served.url) as client:
        await client.handshake(PATH, headers={"Authorization": f"Bearer {TOKEN}"})
        await trio.testing.wait_all_tasks_blocked()
        assert kept_in_locals() == []


async def test_a_connection_between_two_requests_has_no_token_in_hand():
    async with serving_small() as served, open_raw(served.url) as client:
        await client.send(f"GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert (await client.read_response()).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert kept_in_locals() == []
