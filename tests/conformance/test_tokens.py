"""How a client shows the token that it is given, and when it asks for the next one."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from tests.conformance.client import Client, running
from tests.conformance.service import Chat, FakeService, cursor_of

ROOM = Chat("room1")
BEGINNING = cursor_of({ROOM: [0]})


class Run(Protocol):
    """Starts the client under test: each of its tokens is asked for in turn, the last one again and again; an empty one cannot be had."""

    def __call__(self, *tokens: str) -> AbstractAsyncContextManager[Client]: ...


@pytest.fixture
def client(command: list[str], service: FakeService, tmp_path: Path) -> Run:
    def run(*tokens: str) -> AbstractAsyncContextManager[Client]:
        return running(command, service.url, "ann", *(part for token in tokens for part in ("--token", token)), folder=tmp_path)

    return run


async def test_without_a_token_it_shows_none(client: Run, service: FakeService):
    async with client():
        visit = await service.visit()
        assert visit.token is None
        assert visit.protocols == ["kafka-chat.v1"]


async def test_it_shows_its_token_and_the_same_one_after_a_cut(client: Run, service: FakeService):
    async with client("first", "second"):
        visit = await service.visit()
        assert visit.token == "first"
        assert visit.protocols[0] == "kafka-chat.v1"
        await visit.greet(BEGINNING)
        await visit.cut()
        assert (await service.visit()).token == "first"


async def test_it_answers_a_challenge_with_the_next_token_and_comes_back_with_that(client: Run, service: FakeService):
    async with client("first", "second"):
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.control("challenge", expires_in=20)
        said = await visit.next_frame()
        assert (said["op"], said["token"]) == ("auth", "second")
        await visit.control("authorized", re=said["re"], expires_in=600, denied=[])
        await visit.cut()
        assert (await service.visit()).token == "second"


async def test_where_no_token_can_be_had_it_asks_again_and_connects_as_ever(client: Run, service: FakeService):
    async with client("", "first"):
        visit = await service.visit()
        assert visit.token == "first"
        assert visit.protocols[0] == "kafka-chat.v1"


async def test_a_challenge_for_which_no_token_can_be_had_leaves_the_connection_as_it_is(client: Run, service: FakeService):
    async with client("first", "", "second") as told:
        visit = await service.visit()
        await visit.greet(BEGINNING)
        await visit.control("challenge", expires_in=20)
        await visit.send(ROOM.message(0))
        await told.tells(("message", "room1", 0, 0, "room1 0 0"))
        await visit.control("challenge", expires_in=10)
        said = await visit.next_frame()
        assert (said["op"], said["token"]) == ("auth", "second")


@pytest.mark.parametrize("greeted", ["greeted", ""])
async def test_where_its_token_is_refused_it_comes_back_with_the_next_one_at_its_place(greeted: str, client: Run, service: FakeService):
    async with client("first", "second") as told:
        visit = await service.visit()
        if greeted:
            await visit.greet(BEGINNING)
            await visit.send(ROOM.message(0))
            await told.tells(("message", "room1", 0, 0, "room1 0 0"))
        else:
            await visit.accept()
        await visit.close(4401, "the token has expired; connect with a new one")
        visit = await service.visit()
        assert visit.token == "second"
        assert visit.query.get("cursor") == ([f"{BEGINNING}.{ROOM.id_of(0)}"] if greeted else None)


async def test_where_its_only_token_is_refused_it_ends(client: Run, service: FakeService):
    async with client("first") as told:
        visit = await service.visit()
        await visit.accept()
        await visit.close(4401, "a valid token is needed")
        await told.tells(("final", 4401))
        assert "token" in told.reason
        assert service.nobody_came()


async def test_where_it_may_not_do_this_it_ends_with_the_reason(client: Run, service: FakeService):
    async with client("first", "second") as told:
        visit = await service.visit()
        await visit.accept()
        await visit.close(4403, "the token is not this user's")
        await told.tells(("final", 4403))
        assert told.reason == "the token is not this user's"
        assert service.nobody_came()
