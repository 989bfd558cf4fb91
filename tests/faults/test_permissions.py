"""With the permissions that docs/operations.md lists everything works, and without one the service says so and goes on."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from kafka_chat.cli.check import check
from kafka_chat.delivery.ports import KeyedRecord
from kafka_chat.errors import BrokerError
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.publish import open_publisher
from tests.support.calls import until
from tests.support.chats import message, with_overrides
from tests.support.clients import http, open_chat
from tests.support.deadlines import HANG_SECONDS
from tests.support.many_listeners import USER, many_listeners, secured
from tests.support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kafka_chat.settings.model import Settings
    from tests.support.chats import Chats
    from tests.support.http_client import Answer
    from tests.support.many_listeners import ManyListeners
    from tests.support.serving import Server

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
CHATS, SUBSCRIPTIONS = "topics that begin with `chats.prefix`", "the topic `subscriptions.topic`"
ASKS_FOR_PERMISSIONS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",  # clients without a password: tests, and the broker itself
}
ANYTHING = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)
BY_PASSWORD = {name: value for name, value in secured().items() if name.startswith("sasl")} | {"security_protocol": "sasl_plaintext"}
HELLO = {"sender": "bob", "text": "hello"}

pytestmark = pytest.mark.deadline(120)


class GuardedKafka:
    """A broker on which tests may do anything, and the service, whose user has a password, what it was allowed.

    Attributes:
        cluster: for tests.
    """

    def __init__(self, broker: ManyListeners) -> None:
        self.cluster = broker.cluster
        self._broker = broker
        self._admin = AdminClient({"bootstrap.servers": broker.cluster.bootstrap})

    def settings(self, settings: Settings) -> Settings:
        """Return settings for a service that uses this broker as its user."""
        return self._broker.settings(settings, "password", **BY_PASSWORD)

    def allow(self, name: str, operations: Iterable[str], *, prefixed: bool = False) -> None:
        """Let the service do something with a topic.

        Args:
            name: of the topic.
            operations: Kafka's words, such as Read or DescribeConfigs.
            prefixed: `name` is what topics begin with.
        """
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        wanted = [acl_operation(operation) for operation in operations]
        bindings = [AclBinding(ResourceType.TOPIC, name, pattern, f"User:{USER}", "*", one, AclPermissionType.ALLOW) for one in wanted]
        for future in self._admin.create_acls(bindings).values():
            future.result(HANG_SECONDS)

    def forbid_everything(self) -> None:
        """Take all of that back."""
        for future in self._admin.delete_acls([ANYTHING]).values():
            future.result(HANG_SECONDS)


def acl_operation(word: str) -> AclOperation:
    return next(operation for operation in AclOperation if operation.name.replace("_", "").lower() == word.lower())


class Permission(NamedTuple):
    resource: str
    operation: str


def documented() -> set[Permission]:
    """The permissions that the documents ask operators for."""
    table = OPERATIONS.partition("## Permissions in Kafka\n")[2].partition("\n\nOn brokers")[0]
    rows = re.findall(r"^\| (?:<a id=[^>]*></a>)?(t.*?) \| (.*?) \|", table, re.MULTILINE)
    return {Permission(resource, operation) for resource, operations in rows for operation in operations.split(", ")}


@pytest.fixture(scope="module")
def _guarded() -> Iterator[GuardedKafka]:
    with many_listeners(ASKS_FOR_PERMISSIONS) as broker:
        yield GuardedKafka(broker)


@pytest.fixture
def guarded(_guarded: GuardedKafka) -> Iterator[GuardedKafka]:
    """A broker on which the service may do nothing yet."""
    yield _guarded
    _guarded.forbid_everything()


@pytest.fixture
def settings(guarded: GuardedKafka, chats: Chats) -> Settings:
    guarded.cluster.create_topic(chats.topic("global"))
    return guarded.settings(chats.settings_for(guarded.cluster, sending__enabled=True))


def allow(guarded: GuardedKafka, chats: Chats, permissions: set[Permission]) -> None:
    for resource, operation in permissions:
        assert resource in (CHATS, SUBSCRIPTIONS)
        name = chats.prefix if resource == CHATS else chats.subscriptions_topic
        guarded.allow(name, [operation], prefixed=resource == CHATS)


async def wrong(settings: Settings) -> list[str]:
    """What `kafka-chat check` finds fault with."""
    return [finding.sentence for finding in await check(settings) if not finding.ok]


async def ready(server: Server) -> Answer:
    return await http(server.url, "GET", "/ready")


async def until_ready(server: Server, status: int = 200) -> Answer:
    with trio.fail_after(HANG_SECONDS):
        while (answer := await ready(server)).status != status:  # noqa: ASYNC110 - it is asked as a load balancer asks
            await trio.sleep(0.05)
    return answer


@pytest.mark.promise("p-without-describe-configs", "p-permissions")
async def test_what_operators_are_told_to_allow_is_enough(guarded, chats, settings, caplog):
    allow(guarded, chats, documented())
    with caplog.at_level(logging.WARNING):
        async with serving(settings) as server, open_chat(server.url, "ann") as ann:
            await until_ready(server)
            for _ in range(3):
                for method in ("POST", "DELETE"):
                    assert (await http(server.url, method, "/subscribing/ann?topic=room1")).status == 200
            assert (await http(server.url, "POST", "/send-message/chat/global", json_body=HELLO)).status == 200
            assert await ann.texts(1) == ["hello"]
            assert (await ready(server)).status == 200
    assert await wrong(settings) == []
    # Nobody need be allowed anything with the consumer group, so nothing may be said of it.
    assert [record.getMessage() for record in caplog.records if "roup" in record.getMessage()] == []


@pytest.mark.promise("p-no-group")
async def test_a_client_that_is_behind_gets_the_past_without_a_permission_for_the_group(guarded, chats, settings):
    allow(guarded, chats, documented())
    topic = chats.topic("global")
    texts = [f"{number} {'x' * 1000}" for number in range(300)]
    async with serving(with_overrides(settings, memory__bytes=65_536)) as server, open_chat(server.url, "ann") as ann:
        await until_ready(server)
        guarded.cluster.produce_many(topic, [message(text) for text in texts])
        assert await ann.texts(len(texts)) == texts
        assert server.service.telemetry.metrics().count(b"kafka_chat_page_reads_failed_total 0.0") == 1


@pytest.mark.parametrize("operation", ["DescribeConfigs", "Read", "Create"])
@pytest.mark.promise("p-without-subscriptions")
async def test_without_a_permission_for_the_subscriptions_topic_it_is_unready_and_delivers_default_chats(
    guarded, chats, settings, operation
):
    if operation != "Create":
        guarded.cluster.create_topic(chats.subscriptions_topic, cleanup_policy="compact")
    allow(guarded, chats, documented() - {Permission(SUBSCRIPTIONS, operation)})
    async with serving(settings) as server, open_chat(server.url, "ann") as ann:
        answer = await until_ready(server, 503)
        assert "uthorization failed" in answer.text
        assert (await http(server.url, "POST", "/subscribing/ann?topic=room1")).status == 503
        assert (await http(server.url, "POST", "/send-message/chat/global", json_body=HELLO)).status == 200
        assert await ann.texts(1) == ["hello"]
    if operation != "Create":  # which no client can ask for
        assert len(await wrong(settings)) == 1


@pytest.mark.promise("p-without-write", "p-check-permissions")
async def test_without_write_it_says_so_to_who_writes(guarded, chats, settings):
    guarded.cluster.create_topic(chats.subscriptions_topic, cleanup_policy="compact")
    allow(guarded, chats, {permission for permission in documented() if permission.operation != "Write"})
    async with serving(settings) as server:
        await until_ready(server)
        for path, body in (("/subscribing/ann?topic=room1", None), ("/send-message/chat/global", HELLO)):
            answer = await http(server.url, "POST", path, json_body=body)
            assert answer.status == 503
            assert "uthorization failed" in answer.text
    assert [sentence for sentence in await wrong(settings) if "an ACL that allows Write is needed" in sentence] == await wrong(settings)
    assert len(await wrong(settings)) == 2


@pytest.mark.promise("p-without-read")
async def test_without_read_on_a_chat_it_is_told(guarded, chats, settings, caplog):
    allow(guarded, chats, documented() - {Permission(CHATS, "Read"), Permission(CHATS, "Write")})
    with caplog.at_level(logging.WARNING):
        async with serving(settings) as server, open_chat(server.url, "ann"):
            await until_ready(server)
            await until(lambda: any("cannot be read" in record.getMessage() for record in caplog.records))
    assert any("Read is needed" in sentence for sentence in await wrong(settings))


async def test_allowed_nothing_it_lives_and_all_is_well_once_it_is_allowed(guarded, chats, settings):
    async with serving(settings) as server:
        answer = await http(server.url, "POST", "/subscribing/ann?topic=room1")
        assert (answer.status, (await ready(server)).status) == (503, 503)
        allow(guarded, chats, documented())
        await until_ready(server)
        with trio.fail_after(HANG_SECONDS):
            while (await http(server.url, "POST", "/subscribing/ann?topic=room1")).status != 200:  # noqa: ASYNC110 - so would a client
                await trio.sleep(0.1)


async def test_a_producer_that_has_failed_for_good_says_why_and_another_takes_over(guarded, chats, settings):
    topic, record = chats.topic("global"), KeyedRecord(b"k", b"v")
    async with open_publisher(ClientConfig(settings.kafka)) as publisher:
        first = publisher._producer
        await until(lambda: publisher._producer is not first)
        with pytest.raises(BrokerError, match=f"writing to {re.escape(topic)} failed: .*uthorization failed"):
            await publisher.publish(topic, record)
        allow(guarded, chats, documented())
        with trio.fail_after(HANG_SECONDS):
            while True:
                try:
                    at = await publisher.publish(topic, record)
                except BrokerError:
                    await trio.sleep(0.1)
                else:
                    break
    assert guarded.cluster.records(topic)[at.offset].value == b"v"
