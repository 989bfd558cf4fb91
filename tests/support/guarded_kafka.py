"""A broker that lets its clients do what they are allowed to, and no more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from .brokers import KafkaCluster, started
from .chats import with_overrides
from .deadlines import HANG_SECONDS
from .kafka_distribution import kafka_distribution
from .kafka_node import QUICK_JAVA, KafkaNode, broker_properties, free_port
from .processes import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kafka_chat.settings.model import Settings

USER, PASSWORD = "chat", "secret"
_ANYTHING = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)


class GuardedKafka:
    """One broker; tests may do anything with it, and the service, whose user has a password, what it was allowed.

    Attributes:
        cluster: for tests.
    """

    def __init__(self, cluster: KafkaCluster, address: str) -> None:
        self.cluster = cluster
        self._address = address
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap})

    def settings(self, settings: Settings) -> Settings:
        """Return settings for a service that uses this broker as its user."""
        properties = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD}
        return with_overrides(settings, kafka__bootstrap_servers=self._address, kafka__embedded=False, kafka__properties=properties)

    def allow(self, name: str, operations: Iterable[str], *, prefixed: bool = False) -> None:
        """Let the service do something with a topic.

        Args:
            name: of the topic.
            operations: Kafka's words, such as Read or DescribeConfigs.
            prefixed: `name` is what topics begin with.
        """
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        wanted = [_operation(operation) for operation in operations]
        bindings = [AclBinding(ResourceType.TOPIC, name, pattern, f"User:{USER}", "*", one, AclPermissionType.ALLOW) for one in wanted]
        for future in self._admin.create_acls(bindings).values():
            future.result(HANG_SECONDS)

    def forbid_everything(self) -> None:
        """Take all of that back."""
        for future in self._admin.delete_acls([_ANYTHING]).values():
            future.result(HANG_SECONDS)


def _operation(word: str) -> AclOperation:
    return next(operation for operation in AclOperation if operation.name.replace("_", "").lower() == word.lower())


@contextlib.contextmanager
def guarded_kafka() -> Iterator[GuardedKafka]:
    """Run it for as long as the block lasts."""
    with temporary_folder("kafka-") as folder:
        node = KafkaNode(1, folder / "node-1", distribution=kafka_distribution(), options=("-Xms128m", "-Xmx512m", *QUICK_JAVA))
        port = free_port()
        properties = broker_properties(node, {1: node}, {})
        for key in ("listeners", "advertised.listeners"):
            properties[key] = f"{properties[key]},SASL_PLAINTEXT://127.0.0.1:{port}"
        properties["listener.security.protocol.map"] = f"{properties['listener.security.protocol.map']},SASL_PLAINTEXT:SASL_PLAINTEXT"
        properties |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # who comes without a password: tests, and the broker itself
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
                f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            ),
        }
        with started({1: node}, lambda _: properties) as cluster:
            cluster.ports.add(port)
            yield GuardedKafka(cluster, f"127.0.0.1:{port}")
