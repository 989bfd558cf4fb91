"""History pages: all messages, once, from any position, and from there on live."""

from __future__ import annotations

import time
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from tests.support.brokers import Broker, KafkaCluster
from tests.support.calls import metric, running, until
from tests.support.chats import Chats, message
from tests.support.clients import Answer, http
from tests.support.deadlines import HANG_SECONDS
from tests.support.events_client import open_events


async def page(url: str, chat: str, headers: dict[str, str] | None = None, seconds: float = 15.0, **query: Any) -> dict[str, Any]:
    """Ask for a page; `from` is named `begin`."""
    answer = await answered(url, chat, headers, seconds, **query)
    assert answer.status == 200, answer
    body = answer.json()
    assert isinstance(body, dict)
    return body


async def answered(url: str, chat: str, headers: dict[str, str] | None = None, seconds: float = 15.0, **query: Any) -> Answer:
    named = {"from" if name == "begin" else name: value for name, value in query.items()}
    return await http(url, "GET", f"/history/{chat}?{urlencode(named, doseq=True)}", headers=headers, seconds=seconds)


def texts(body: dict[str, Any]) -> list[str]:
    return [one["text"] for one in body["messages"]]


async def walk(url: str, chat: str, **query: Any) -> list[dict[str, Any]]:
    """All pages from here on, by following `next`, or `prev` where it goes backward."""
    pages = [await page(url, chat, **query)]
    while not pages[-1]["end"]:
        cursor = pages[-1]["prev" if query.get("direction") == "backward" else "next"]
        kept = {name: value for name, value in query.items() if name not in ("begin", "rewind")}
        pages.append(await page(url, chat, **{**kept, "cursor": cursor}))
        assert len(pages) < 200
    return pages


async def produce(broker: Broker, topic: str, numbers: range, partitions: int) -> None:
    """Put messages there, dealt out to the partitions."""
    for partition in range(partitions):
        values = [message(str(number)) for number in numbers if number % partitions == partition]
        await trio.to_thread.run_sync(partial(broker.produce_many, topic, values, partition=partition))


async def test_pages_have_every_message_once_in_both_directions(broker: Broker, chats: Chats) -> None:
    topic, count, partitions = chats.topic("room1"), 1500, 4
    broker.create_topic(topic, partitions=partitions)
    await produce(broker, topic, range(count), partitions)
    async with running(chats.settings_for(broker)) as server:
        for query in ({"limit": 200}, {"limit": 1000}, {"limit": 333, "direction": "backward"}):
            pages = await walk(server.url, "room1", **query)
            found = [one for body in (reversed(pages) if "direction" in query else pages) for one in body["messages"]]
            assert sorted(int(one["text"]) for one in found) == list(range(count))
            for partition in range(partitions):
                offsets = [one["meta"]["offset"] for one in found if one["meta"]["partition"] == partition]
                assert offsets == list(range(len(offsets)))
            times = [one["meta"]["time"] for one in found]
            assert times == sorted(times)
            assert all(len(body["messages"]) == query["limit"] for body in pages[:-1])


@pytest.mark.promise("p-page-acknowledged")
async def test_what_was_acknowledged_before_the_request_is_on_the_page(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=2)
    async with running(chats.settings_for(broker)) as server:
        for number in range(50):
            broker.produce(topic, message(str(number)), partition=number % 2)
            assert texts(await page(server.url, "global", direction="backward", limit=1)) == [str(number)]


async def test_a_page_leads_on_to_a_stream_without_a_hole(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("global")
    broker.create_topic(topic, partitions=2)
    produced = 0

    def more() -> None:
        nonlocal produced
        broker.produce(topic, message(str(produced)), partition=produced % 2)
        produced += 1

    async with running(chats.settings_for(broker)) as server, trio.open_nursery() as nursery:

        async def keep_on() -> None:
            while True:
                await trio.to_thread.run_sync(more)

        for _ in range(200):
            more()
        nursery.start_soon(keep_on)
        for _ in range(10):
            body = await page(server.url, "global", rewind=20, limit=30)
            had = [int(text) for text in texts(body)]
            async with open_events(server.url, "ann", urlencode({"cursor": body["next"]})) as client:
                had += [int(text) for text in await client.texts(50)]
            for partition in (0, 1):
                numbers = [number for number in had if number % 2 == partition]
                assert numbers == list(range(numbers[0], numbers[0] + 2 * len(numbers), 2)), "a hole, or something twice"
        nursery.cancel_scope.cancel()


@pytest.mark.promise("p-page-waits")
@pytest.mark.access_off
async def test_a_page_waits_for_news_and_ends_when_they_come(broker: Broker, chats: Chats) -> None:
    topic = chats.topic("room1")
    broker.create_topic(topic, partitions=1)
    broker.produce(topic, message("old"), partition=0)
    async with running(chats.settings_for(broker)) as server:
        body = await page(server.url, "room1")
        assert texts(body) == ["old"]
        answers: list[Answer] = []

        async def wait() -> None:
            answers.append(await answered(server.url, "room1", {"prefer": "wait=30"}, 30, cursor=body["next"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: server.service.slots_taken == 1)
            broker.produce(topic, message("news"), partition=0)
        (answer,) = answers
        assert answer.headers["preference-applied"] == "wait=30"
        assert answer.headers["cache-control"] == "no-store"
        assert texts(answer.json()) == ["news"]  # type: ignore[arg-type]
        empty = await page(server.url, "room1", {"prefer": "wait=1"}, cursor=answer.json()["next"])  # type: ignore[index]
        assert (empty["messages"], empty["end"]) == ([], True)


async def test_who_waits_for_news_is_answered_at_once_when_the_service_restarts(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(broker)) as server:
        async with trio.open_nursery() as nursery:
            answers: list[dict[str, Any]] = []

            async def wait() -> None:
                answers.append(await page(server.url, "room1", {"prefer": "wait=55"}, 60))

            nursery.start_soon(wait)
            await until(lambda: server.service.slots_taken == 1)
            server.shut_down()
        assert answers[0]["messages"] == []
        await server.ended()


async def test_who_waits_and_leaves_leaves_nothing(broker: Broker, chats: Chats) -> None:
    broker.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(broker)) as server:
        for _ in range(3):
            with trio.move_on_after(0.5):
                await page(server.url, "room1", {"prefer": "wait=55"}, 60)
        await until(lambda: server.service.slots_taken == 0)
        assert await metric(server.url, "followed_topics") == 1


@pytest.mark.promise("p-page-404")
async def test_a_chat_without_a_topic_is_not_found_until_it_has_one(kafka: KafkaCluster, chats: Chats) -> None:
    kafka.create_topic(chats.topic("global"))
    async with running(chats.settings_for(kafka)) as server:
        answer = await answered(server.url, "room1")
        assert answer.status == 404
        assert answer.json() == {"error": f"room1 is not a chat: the topic {chats.topic('room1')} does not exist", "field": "chat"}
        assert chats.topic("room1") not in kafka.topics()
        kafka.create_topic(chats.topic("room1"))
        kafka.produce(chats.topic("room1"), message("first"))
        assert texts(await page(server.url, "room1")) == ["first"]


@pytest.mark.promise("p-page-end")
async def test_times_bound_a_page(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic, partitions=2)
    began = time.time_ns() // 1_000_000 - 60_000
    for number in range(20):
        kafka.produce(topic, message(str(number)), partition=number % 2, timestamp_ms=began + number)
    between = began + 10
    async with running(chats.settings_for(kafka)) as server:
        assert texts(await page(server.url, "room1", until=between)) == [str(number) for number in range(10)]
        assert texts(await page(server.url, "room1", begin=between)) == [str(number) for number in range(10, 20)]
        assert texts(await page(server.url, "room1", begin="-1h", until=between, limit=3)) == ["0", "1", "2"]
        assert texts(await page(server.url, "room1", begin=between, direction="backward", limit=3)) == ["7", "8", "9"]
        assert texts(await page(server.url, "room1", rewind=4, limit=2)) == ["16", "17"]


@pytest.mark.promise("p-page-links")
async def test_links_lead_through_the_whole_chat_with_the_filter_kept(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic, partitions=3)
    for number in range(60):
        kafka.produce(topic, message(str(number), tag=("a b", "c")[number % 2], sender=f"s{number % 3}"), partition=number % 3)
    async with running(chats.settings_for(kafka)) as server:
        target, found = f"/history/room1?{urlencode({'tag': 'a b', 'sender': 's1', 'limit': 4})}", []
        for _ in range(10):
            answer = await http(server.url, "GET", target)
            body: Any = answer.json()
            found += texts(body)
            if body["end"]:
                break
            target = "/history/room1" + answer.headers["link"].partition(">")[0].removeprefix("<")
        assert found == [str(number) for number in range(60) if number % 2 == 0 and number % 3 == 1]


@pytest.mark.access_off
async def test_a_page_that_stays_the_same_may_be_kept_unless_its_topic_is_compacted(kafka: KafkaCluster, chats: Chats) -> None:
    old = {"room1": "delete", "room2": "compact,delete"}
    for chat, policy in old.items():
        kafka.create_topic(chats.topic(chat), cleanup_policy=policy)
        for number in range(10):
            kafka.produce(chats.topic(chat), message(str(number)), key=str(number))
    async with running(chats.settings_for(kafka)) as server:
        await until(lambda: server.service._context.cluster.mark is not None)
        for chat, kept in {"room1": "private, max-age=3600, immutable", "room2": "private, no-cache"}.items():
            first = await page(server.url, chat, limit=2)
            answer = await answered(server.url, chat, cursor=first["next"], limit=3)
            assert texts(answer.json()) == ["2", "3", "4"]  # type: ignore[arg-type]
            assert answer.headers["cache-control"] == kept
            again = await answered(server.url, chat, {"if-none-match": answer.headers["etag"]}, cursor=first["next"], limit=3)
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])
            changing = await answered(server.url, chat, cursor=first["next"], limit=300)
            assert changing.headers["cache-control"] == "no-store"
            assert "etag" not in changing.headers


@pytest.mark.promise("p-page-stays", "p-page-no-store")
@pytest.mark.access_off
async def test_a_page_that_could_be_kept_is_another_one_once_its_records_are_deleted_or_its_topic_is_made_anew(
    kafka: KafkaCluster, chats: Chats
) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic)
    kafka.produce_many(topic, [message(str(number)) for number in range(20)], partition=0)
    async with running(chats.settings_for(kafka)) as server:
        await until(lambda: server.service._context.cluster.mark is not None)
        cursor = (await page(server.url, "room1", limit=2))["next"]
        kept = await answered(server.url, "room1", cursor=cursor, limit=3)
        assert kept.headers["cache-control"] == "private, max-age=3600, immutable"
        etag = {"if-none-match": kept.headers["etag"]}

        kafka.delete_records(topic, 0, 3)
        shorter = await answered(server.url, "room1", etag, cursor=cursor, limit=3)
        assert texts(shorter.json()) == ["3", "4", "5"]  # type: ignore[arg-type]
        assert [gap["cause"] for gap in shorter.json()["gaps"]] == ["retention"]  # type: ignore[index]
        assert (shorter.status, shorter.headers["cache-control"]) == (200, "no-store")

        await trio.to_thread.run_sync(kafka.delete_topic, topic)
        kafka.create_topic(topic)
        kafka.produce_many(topic, [message(f"new {number}") for number in range(20)], partition=0)
        with trio.fail_after(HANG_SECONDS):  # as long as it takes until this is known
            while "new" not in (made_anew := await answered(server.url, "room1", etag, cursor=cursor, limit=3)).text:
                assert made_anew.status != 304, "the page of the topic that was deleted"
                await trio.sleep(0.1)
        assert texts(made_anew.json()) == ["new 0", "new 1", "new 2"]  # type: ignore[arg-type]
        assert [gap["cause"] for gap in made_anew.json()["gaps"]] == ["recreated"]  # type: ignore[index]
        assert made_anew.headers["cache-control"] == "no-store"
        # A cursor of the new topic begins pages that may be kept, and no page of it has the tag of one of the old topic.
        first = await page(server.url, "room1", limit=2)
        of_new = await answered(server.url, "room1", etag, cursor=first["next"], limit=3)
        assert (of_new.status, texts(of_new.json())) == (200, ["new 2", "new 3", "new 4"])  # type: ignore[arg-type]
        assert of_new.headers["cache-control"] == "private, max-age=3600, immutable"
        assert of_new.headers["etag"] != kept.headers["etag"]


async def test_what_retention_took_is_told(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic)
    for number in range(100):
        kafka.produce(topic, message(str(number)))
    async with running(chats.settings_for(kafka)) as server:
        first = await page(server.url, "room1", limit=10)
        kafka.delete_records(topic, 0, 50)
        body = await page(server.url, "room1", cursor=first["next"], limit=3)
        assert texts(body) == ["50", "51", "52"]
        assert body["gaps"] == [{"type": "gap", "chat": "room1", "partition": 0, "first_lost": 10, "first_left": 50, "cause": "retention"}]
        backward = await walk(server.url, "room1", direction="backward", limit=40)
        assert [text for one in reversed(backward) for text in texts(one)] == [str(number) for number in range(50, 100)]
        assert not any(one["gaps"] for one in backward)
        assert await metric(server.url, "positions_lost_total") == 0


async def test_pages_go_over_transactions_as_they_count(kafka: KafkaCluster, chats: Chats) -> None:
    topic = chats.topic("room1")
    kafka.create_topic(topic)
    expected = []
    for turn in range(6):
        transaction = await trio.to_thread.run_sync(kafka.transaction)
        some = [str(10 * turn + number) for number in range(5)]
        await trio.to_thread.run_sync(lambda t=transaction, some=some: [t.produce(topic, message(text)) for text in some])
        await trio.to_thread.run_sync(transaction.abort if turn % 2 else transaction.commit)
        expected += [] if turn % 2 else some
    async with running(chats.settings_for(kafka)) as server:
        for query in ({"limit": 4}, {"limit": 4, "direction": "backward"}):
            pages = await walk(server.url, "room1", **query)
            ordered = reversed(pages) if "direction" in query else pages
            assert [text for body in ordered for text in texts(body)] == expected


async def test_many_who_read_at_once_share_the_readers(kafka: KafkaCluster, chats: Chats) -> None:
    for chat in ("room1", "room2"):
        kafka.create_topic(chats.topic(chat), partitions=2)
        await produce(kafka, chats.topic(chat), range(3000), 2)
    async with running(chats.settings_for(kafka, pages__readers=2, memory__bytes=1 << 20)) as server, trio.open_nursery() as nursery:

        async def read(chat: str) -> None:
            pages = await walk(server.url, chat, limit=500)
            assert sorted(int(text) for body in pages for text in texts(body)) == list(range(3000))

        for number in range(20):
            nursery.start_soon(read, f"room{number % 2 + 1}")


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.promise("p-page-503")
async def test_places_are_given_to_so_many_and_the_others_come_again(kafka: KafkaCluster, chats: Chats, limit: int) -> None:
    kafka.create_topic(chats.topic("room1"))
    async with running(chats.settings_for(kafka, limits__connections=limit)) as server, trio.open_nursery() as nursery:
        for _ in range(limit):
            nursery.start_soon(partial(page, server.url, "room1", {"prefer": "wait=20"}, 30))
        await until(lambda: server.service.slots_taken == limit)
        answer = await answered(server.url, "room1")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        kafka.produce(chats.topic("room1"), message("done"))
