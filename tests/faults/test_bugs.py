"""A bug in one session ends that session; a bug in a shared task ends the process, with an exit code that says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from kafka_chat.errors import ServiceFailed
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.brokers import Broker
from tests.support.chats import Chats, message
from tests.support.clients import Opcode, close_code, http, open_chat, open_raw, receive_path
from tests.support.serving import child, serving

ROOT = Path(__file__).parents[2]


class WithBugs(Telemetry):
    """Has a bug where one session's task calls it, and one where a task of the whole service does.

    Attributes:
        fails_at: the event that fails.
    """

    def __init__(self, fails_at: str) -> None:
        super().__init__()
        self.fails_at = fails_at

    def client_text_discarded(self) -> None:
        self._fail("client_text_discarded")

    def record_rejected(self, **_: object) -> None:
        self._fail("record_rejected")

    def delivered(self, *, messages: int, size: int) -> None:
        self._fail("delivered")

    def _fail(self, event: str) -> None:
        if event == self.fails_at:
            raise ZeroDivisionError(f"a bug in {event}")


async def test_a_bug_in_a_session_closes_it_with_1011_and_nobody_elses(broker: Broker, chats: Chats, caplog: pytest.LogCaptureFixture):
    broker.create_topic(chats.topic("global"))
    async with (
        serving(chats.settings_for(broker), telemetry=WithBugs("client_text_discarded")) as server,
        open_chat(server.url, "ann") as other_of_ann,
        open_chat(server.url, "bob") as bob,
    ):
        for _ in range(3):
            async with open_raw(server.url, receive_path("ann")) as ann:
                await ann.send_frame(Opcode.TEXT, b"hello")
                assert [close_code(frame)[0] for frame in await ann.read_to_end()] == [1011]
        broker.produce(chats.topic("global"), message("on we go"), partition=0)
        for client in (other_of_ann, bob):
            assert (await client.next()).text == "on we go"
        assert server.service.slots_taken == 2
        metrics = (await http(server.url, "GET", "/metrics")).text
        assert "kafka_chat_sessions_failed_total 3.0" in metrics
        assert 'kafka_chat_sessions_closed_total{code="1011"} 3.0' in metrics
    failures = [record for record in caplog.records if record.getMessage().startswith("session.failed")]
    assert len(failures) == 3
    assert all(record.exc_info for record in failures)


@pytest.mark.parametrize("bug", ["record_rejected", "delivered"])
async def test_a_bug_in_the_tail_or_the_fan_out_ends_the_server(broker: Broker, chats: Chats, bug: str):
    broker.create_topic(chats.topic("global"))
    expected = pytest.RaisesExc(ServiceFailed, match=f"a bug in {bug}")
    with pytest.RaisesGroup(expected, flatten_subgroups=True):
        async with serving(chats.settings_for(broker), telemetry=WithBugs(bug)) as server, open_raw(server.url, receive_path("ann")) as ann:
            broker.produce(chats.topic("global"), b"no message" if bug == "record_rejected" else message("x"), partition=0)
            await ann.wait_ended(seconds=3)
            await trio.sleep_forever()  # until the service ends it


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, str(Path(__file__).with_name("app_with_a_bug.py"))],
        [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", "0", "--bind", "127.0.0.1:0", "tests.faults.app_with_a_bug:app"],
    ],
    ids=["our_command", "hypercorn"],
)
@pytest.mark.promise("p-exit-1")
async def test_a_bug_in_the_tail_ends_the_process_with_an_error(kafka: Broker, chats: Chats, command: list[str]):
    kafka.create_topic(chats.topic("global"))
    async with child(command, settings=chats.settings_for(kafka), env={"PYTHONPATH": str(ROOT)}) as server:
        url = (await server.wait_for(r"(?:listening|Running) on (http://[^\s,]+)"))[1]
        async with open_raw(url, receive_path("ann")) as ann:
            kafka.produce(chats.topic("global"), b"no message")
            await ann.wait_ended(seconds=3)
        assert await server.wait() == 1
        assert "ZeroDivisionError: a bug in record_rejected" in server.stderr
