"""kafka_chat.client and `kafka-chat listen` against the real service: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from kafka_chat.client import Chat, Gap, Hello, Live, Message, Refused, open_chat
from tests.support.calls import running, subscribe, until
from tests.support.chats import Chats, message
from tests.support.relay import open_relay
from tests.support.serving import child, spawned, until_ready

if TYPE_CHECKING:
    from kafka_chat.client import Event
    from tests.support.brokers import Broker, KafkaCluster
    from tests.support.serving import ChildServer

COMMAND = str(Path(sys.executable).with_name("kafka-chat"))


class Taken:
    """What a chat has handed over."""

    def __init__(self) -> None:
        self.offsets: dict[tuple[str, int | None], list[int | None]] = defaultdict(list)
        self.others: list[Event] = []

    async def take(self, chat: Chat) -> None:
        async for event in chat:
            if isinstance(event, Message):
                self.offsets[event.chat, event.partition].append(event.offset)
            else:
                self.others.append(event)

    @property
    def count(self) -> int:
        return sum(map(len, self.offsets.values()))

    @property
    def hellos(self) -> list[str]:
        return [event.resume for event in self.others if isinstance(event, Hello)]

    def check(self) -> None:
        """Each partition has come from its first offset on, each offset once, and nothing was said to be lost."""
        for at, offsets in self.offsets.items():
            assert offsets == list(range(len(offsets))), (at, offsets)
        assert not [event for event in self.others if isinstance(event, Gap)]


class Writing:
    """Writes to all partitions of two chats until the block ends."""

    def __init__(self, broker: Broker, chats: Chats) -> None:
        self.count = 0
        self._broker = broker
        self._topics = [chats.topic("global"), chats.topic("room1")]
        for topic in self._topics:
            broker.create_topic(topic, 3)

    async def write(self, count: int) -> None:
        for _ in range(count):
            topic, partition = self._topics[self.count % 2], self.count // 2 % 3
            await trio.to_thread.run_sync(lambda t=topic, p=partition: self._broker.produce(t, message("x"), partition=p))
            self.count += 1


async def next_message(chat: Chat) -> Message:
    while not isinstance(event := await anext(chat), Message):
        pass
    return event


@pytest.mark.deadline(120)
async def test_a_connection_that_is_cut_again_and_again_costs_nothing(broker: Broker, chats: Chats):
    writing, taken = Writing(broker, chats), Taken()
    async with running(chats.settings_for(broker)) as server, open_relay(server.url) as relay:
        await subscribe(server.url, "ann", "room1")
        async with open_chat(relay.url, "ann", from_="earliest") as chat, trio.open_nursery() as nursery:
            nursery.start_soon(taken.take, chat)
            for cuts in range(1, 7):
                await until(lambda cuts=cuts: len(taken.hellos) >= cuts)
                await writing.write(20)
                if cuts % 2:
                    relay.cut()  # by an RST
                else:
                    relay.break_off()  # a black hole, which is cut once it is mended
                await writing.write(20)
                relay.mend()
            await until(lambda: taken.count >= writing.count)
            nursery.cancel_scope.cancel()
    taken.check()
    assert taken.count == writing.count
    assert taken.hellos == ["none", *["exact"] * (len(taken.hellos) - 1)]


@pytest.mark.deadline(120)
@pytest.mark.promise("p-restart-one-by-one")
async def test_a_service_that_is_replaced_or_killed_costs_nothing(kafka: KafkaCluster, chats: Chats):
    settings = chats.settings_for(kafka)
    writing, taken, told = Writing(kafka, chats), Taken(), list[str]()

    async def replaced(relay_to: ChildServer, *, kill: bool) -> None:
        await until_ready(relay_to)
        if kill:
            relay_to.kill()
        else:
            relay_to.terminate()
        await relay_to.wait()

    async with spawned(settings=settings) as first, open_relay(first.url) as relay:
        await until_ready(first)
        await subscribe(first.url, "ann", "room1")
        async with open_chat(relay.url, "ann", from_="earliest", tell=told.append) as chat, trio.open_nursery() as nursery:
            nursery.start_soon(taken.take, chat)
            await until(lambda: any(isinstance(event, Live) for event in taken.others))
            await writing.write(30)
            await replaced(first, kill=False)
            await writing.write(30)
            async with spawned(settings=settings) as second:
                relay.service = second.url
                await until(lambda: len(taken.hellos) == 2)
                await writing.write(30)
                await replaced(second, kill=True)
            await writing.write(30)
            async with spawned(settings=settings) as third:
                relay.service = third.url
                await writing.write(30)
                await until(lambda: taken.count >= writing.count)
                nursery.cancel_scope.cancel()
    taken.check()
    assert taken.count == writing.count
    assert taken.hellos == ["none", "exact", "exact"]
    assert any("the service is restarting; reconnecting" in sentence for sentence in told)


async def test_a_cursor_goes_on_in_another_program_and_a_filter_moves_on_through_what_it_holds_back(kafka: KafkaCluster, chats: Chats):
    topic = chats.topic("global")
    kafka.create_topic(topic)
    for number in range(5):
        kafka.produce(topic, message(str(number), sender="ann" if number % 2 else "bo", tag="even" if number % 2 == 0 else "odd"))
    async with running(chats.settings_for(kafka)) as server:
        async with open_chat(server.url, "ann", from_="earliest", senders=["bo"]) as chat:
            texts = []
            async for event in chat:
                if isinstance(event, Message):
                    texts.append(event.text)
                elif isinstance(event, Live):
                    break
            assert texts == ["0", "2", "4"]
            cursor = chat.cursor
        kafka.produce(topic, message("5"))
        async with open_chat(server.url, "zoë", cursor=cursor) as chat:
            hello = await anext(chat)
            assert isinstance(hello, Hello)
            assert hello.resume == "exact"
            assert (await next_message(chat)).text == "5"
        async with open_chat(server.url, "ann", rewind=2, tags=["even"], until="-0s") as chat:
            assert [event.text async for event in chat if isinstance(event, Message)] == ["4", "5"]


async def test_what_retention_took_is_told(kafka: KafkaCluster, chats: Chats):
    topic = chats.topic("global")
    kafka.create_topic(topic)
    for number in range(10):
        kafka.produce(topic, message(str(number)))
    async with running(chats.settings_for(kafka)) as server, open_chat(server.url, "ann", from_="earliest") as chat:
        async for event in chat:
            if isinstance(event, Message) and event.offset == 2:
                break
        cursor = chat.cursor
    kafka.delete_records(topic, 0, 7)
    async with running(chats.settings_for(kafka)) as other, open_chat(other.url, "ann", cursor=cursor) as chat:
        events = [await anext(chat) for _ in range(3)]
    hello, gap, first = events
    assert isinstance(hello, Hello)
    assert hello.resume == "gap"
    assert gap == Gap(chat="global", partition=0, first_lost=3, first_left=7, cause="retention")
    assert isinstance(first, Message)
    assert first.offset == 7


async def test_ops_do_what_they_say(broker: Broker, chats: Chats):
    for chat in ("global", "room1"):
        broker.create_topic(chats.topic(chat))
    async with running(chats.settings_for(broker, sending__enabled=True)) as server, open_chat(server.url, "ann") as chat:
        await chat.ping()
        subscribed = await chat.subscribe("room1")
        assert (subscribed.chat, subscribed.exists, set(subscribed.positions.values())) == ("room1", True, {0})
        sent = await chat.send("room1", "hi", tag="t")
        event = await next_message(chat)
        assert (event.chat, event.partition, event.offset, event.sender, event.tag) == ("room1", sent.partition, sent.offset, "ann", "t")
        assert (await chat.unsubscribe("room1")).positions[sent.partition] == 1
        with pytest.raises(Refused, match="chat is 'a b'") as refused:
            await chat.subscribe("a b")
        assert (refused.value.code, refused.value.field) == (400, "chat")


async def test_a_bad_beginning_is_refused_by_the_sentence_of_the_service(embedded: Broker, chats: Chats):
    async with running(chats.settings_for(embedded)) as server:
        for options, field in (({"cursor": "hello"}, "cursor"), ({"from_": "12"}, "from"), ({"rewind": 1001}, "rewind")):
            async with open_chat(server.url, "ann", **options) as chat:  # type: ignore[arg-type]
                with pytest.raises(Refused, match=rf"^{field}(: this)? is .*\(4400\)$") as refused:
                    await anext(chat)
                assert refused.value.code == 4400
        async with open_chat(server.url, "a\nb") as chat:
            with pytest.raises(Refused, match=r"^username has a control character, which is not allowed \(4400\)$"):
                await anext(chat)


# --- the command


def texts(listener: ChildServer) -> list[str]:
    return [json.loads(line)["text"] for line in listener.stdout.splitlines()]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
async def test_listen_goes_on_where_it_ended_last_time(kafka: KafkaCluster, chats: Chats, tmp_path: Path, ending: signal.Signals):
    topic = chats.topic("global")
    kafka.create_topic(topic)
    async with running(chats.settings_for(kafka)) as server:
        command = [COMMAND, "listen", "ann", "--json", "--rewind", "2", "--cursor-file", str(tmp_path / "cursor"), "--url", server.url]
        for number in range(4):
            kafka.produce(topic, message(str(number)))
        async with child(command) as listener:
            await listener.wait_for('"3"')
            assert texts(listener) == ["2", "3"]
            listener.signal(ending)
            assert await listener.wait() == 128 + ending
            assert "Traceback" not in listener.stderr
        for number in range(4, 8):
            kafka.produce(topic, message(str(number)))
        async with child(command) as listener:
            await listener.wait_for('"7"')
            assert texts(listener) == ["4", "5", "6", "7"]
            listener.signal(ending)
            await listener.wait()
        async with child([*command[:3], "--until", "-0s", *command[3:]]) as listener:
            assert await listener.wait() == 0
            assert listener.stdout == ""


async def test_listen_shows_what_was_asked_for_and_where_it_is(kafka: KafkaCluster, chats: Chats):
    for chat in ("global", "room1"):
        kafka.create_topic(chats.topic(chat))
        for number, (sender, tag) in enumerate([("ann", None), ("bo", "a"), ("bo", "b"), ("cy", "a")]):
            kafka.produce(chats.topic(chat), message(str(number), sender=sender, tag=tag))
    async with running(chats.settings_for(kafka)) as server:
        flags = ["--chat-only", "room1", "--tag", "a", "--sender", "bo", "--sender", "ann", "--from", "-1h", "--until", "-0s", "--meta"]
        command = [COMMAND, "listen", "ann", "--url", server.url]
        async with child([*command, *flags]) as listener:
            assert await listener.wait() == 0
            lines = [line.split(" ", 1)[1] for line in listener.stdout.splitlines()]
        assert lines == ["room1/0@0 ann: 0", "room1/0@1 bo: 1  #a"]
        async with child([*command, *flags, "--json"]) as listener:
            assert await listener.wait() == 0
            frames = [json.loads(line) for line in listener.stdout.splitlines()]
        assert [frame["meta"]["offset"] for frame in frames] == [0, 1]
        async with child([*command, "--json", "--chat-only", "room1", "--cursor", frames[1]["meta"]["id"], "--until", "-0s"]) as listener:
            assert await listener.wait() == 0
            assert texts(listener) == ["2", "3"]


async def test_listen_tells_of_a_gap_and_of_what_is_refused(kafka: KafkaCluster, chats: Chats, tmp_path: Path):
    topic = chats.topic("global")
    kafka.create_topic(topic)
    kafka.produce(topic, message("0"))
    file = tmp_path / "cursor"

    def command(url: str) -> list[str]:
        return [COMMAND, "listen", "ann", "--json", "--from", "earliest", "--cursor-file", str(file), "--url", url]

    async with running(chats.settings_for(kafka)) as server, child(command(server.url)) as listener:
        await listener.wait_for('"0"')
    for number in range(1, 4):
        kafka.produce(topic, message(str(number)))
    kafka.delete_records(topic, 0, 3)
    async with running(chats.settings_for(kafka)) as server:
        async with child(command(server.url)) as listener:
            await listener.wait_for('"3"')
            assert texts(listener) == ["3"]
            lost = "messages of global/0 are lost: offsets 1 to 2 are gone (deleted by age, by size or by hand); it continues at 3"
            assert lost in listener.stderr
        async with child([COMMAND, "listen", "ann", "--from", "12", "--url", server.url]) as listener:
            assert await listener.wait() == 1
            assert listener.stderr.startswith("kafka-chat: --from is 12; Unix milliseconds are needed")
        file.write_text("hello")
        async with child(command(server.url)) as listener:
            assert await listener.wait() == 2
            assert "holds no cursor" in listener.stderr
