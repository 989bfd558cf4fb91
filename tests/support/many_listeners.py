"""A broker with many listeners: near, far, with TLS and a password, or under a name that does not resolve."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .brokers import KafkaCluster, started
from .chats import with_overrides
from .kafka_distribution import kafka_distribution
from .kafka_node import QUICK_JAVA, KafkaNode, broker_properties, free_port
from .processes import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kafka_chat.settings.model import Settings

USER, PASSWORD = "chat", "secret"
CERTIFICATE = Path(__file__).parent / "localhost" / "certificate.pem"
KEY = CERTIFICATE.with_name("key.pem")
NOBODY = "kafka-that-nobody-knows.invalid"
WITH_PASSWORD = {"sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD}
TRUSTING = {"ssl.ca.location": str(CERTIFICATE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One of its ways in.

    Attributes:
        protocol: Kafka's word.
        port: where it listens.
        advertised: where it says that it does.
    """

    protocol: str
    port: int
    advertised: tuple[str, int]

    @property
    def address(self) -> str:
        """Where it says that it is; of one that says a name that nobody knows, where it is."""
        return f"localhost:{self.port if self.advertised[0] == NOBODY else self.advertised[1]}"


class ManyListeners:
    """One broker.

    Attributes:
        cluster: for tests, by a listener that asks for nothing.
        listeners: `far` and `far_secure`, which say that they are at another port; `secure` and `tls`; `password`; `lost`.
    """

    def __init__(self, cluster: KafkaCluster, listeners: Mapping[str, Listener]) -> None:
        self.cluster = cluster
        self.listeners = listeners

    def settings(self, settings: Settings, listener: str, **properties: str) -> Settings:
        """Return settings for a service that comes by this listener, with nothing but these properties, `_` for `.` in their names."""
        named = {name.replace("_", "."): value for name, value in properties.items()}
        address = self.listeners[listener].address
        return with_overrides(settings, kafka__bootstrap_servers=address, kafka__embedded=False, kafka__properties=named)


def secured() -> dict[str, str]:
    """Return the properties of a client that comes by TLS with the right password, as `ManyListeners.settings` takes them."""
    wanted = {"security.protocol": "sasl_ssl", **WITH_PASSWORD, **TRUSTING}
    return {name.replace(".", "_"): value for name, value in wanted.items()}


@contextlib.contextmanager
def many_listeners(more: Mapping[str, str] | None = None) -> Iterator[ManyListeners]:
    """Run it while the block runs.

    Args:
        more: further properties of the broker.
    """

    def listener(protocol: str, *, elsewhere: bool = False, host: str = "localhost") -> Listener:
        port = free_port()
        return Listener(protocol=protocol, port=port, advertised=(host, free_port() if elsewhere else port))

    listeners = {
        "far": listener("PLAINTEXT", elsewhere=True),
        "far_secure": listener("SASL_SSL", elsewhere=True),
        "secure": listener("SASL_SSL"),
        "tls": listener("SSL"),
        "password": listener("SASL_PLAINTEXT"),
        "lost": listener("PLAINTEXT", host=NOBODY),
    }
    names = {name: name.replace("_", "").upper() for name in listeners}
    with temporary_folder("kafka-") as folder:
        node = KafkaNode(1, folder / "node-1", distribution=kafka_distribution(), options=("-Xms128m", "-Xmx512m", *QUICK_JAVA))
        store = folder / "store.pem"
        store.write_text(KEY.read_text() + CERTIFICATE.read_text())
        properties = broker_properties(node, {1: node}, {})
        for name, there in listeners.items():
            properties["listeners"] = f"{properties['listeners']},{names[name]}://127.0.0.1:{there.port}"
            host, port = there.advertised
            properties["advertised.listeners"] = f"{properties['advertised.listeners']},{names[name]}://{host}:{port}"
            protocols = properties["listener.security.protocol.map"]
            properties["listener.security.protocol.map"] = f"{protocols},{names[name]}:{there.protocol}"
            if there.protocol.startswith("SASL"):
                jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
                properties[f"listener.name.{names[name].lower()}.plain.sasl.jaas.config"] = jaas
        properties |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "connection.failed.authentication.delay.ms": 0,
            **(more or {}),
        }
        with started({1: node}, lambda _: properties) as cluster:
            cluster.ports.update(port for there in listeners.values() for port in (there.port, there.advertised[1]))
            yield ManyListeners(cluster, listeners)
