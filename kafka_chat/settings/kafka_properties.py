"""Decides which of librdkafka's properties an operator may set, and says why not the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MASK = "***"


class PropertyProblem(NamedTuple):
    """librdkafka's problem with some properties.

    Attributes:
        sentence: the problem.
        name: the property; None if it is about several together.
        unknown: whether librdkafka has no property of that name.
    """

    sentence: str
    name: str | None = None
    unknown: bool = False


# Broad on purpose: masking a harmless value costs less than a secret in a log.
_SECRET = re.compile(
    r"passw|pwd|passphrase|secret|token|credential|jaas|key\.pem|oauthbearer\.(config|extensions)|kinit\.cmd|^ssl_key$", re.IGNORECASE
)

_NO_GROUP = "kafka_chat joins no consumer group"
_NO_COMMITS = "kafka_chat commits no offsets; each client keeps its own position"
_ACKNOWLEDGED = "an acknowledged message must be on all in-sync replicas"
_IN_ORDER = "a sender's messages must stay in order, without duplicates"
_TIMELY = "a message that was refused must not be written later"
_NO_TRANSACTIONS = "kafka_chat sends no transactions"
_REPORTED = "the answer to a sender must name partition and offset"
_TUNED = "latency and memory depend on it; use memory.bytes and limits.*"
_BOOTSTRAP = "use kafka.bootstrap_servers"
_CODE = "its value is code, not text"
_INTERNAL = "kafka_chat sets it itself"

_REFUSED: dict[str, str] = {
    "bootstrap.servers": _BOOTSTRAP,
    "metadata.broker.list": _BOOTSTRAP,
    "group.id": _NO_GROUP,
    "group.instance.id": _NO_GROUP,
    "group.protocol": _NO_GROUP,
    "group.protocol.type": _NO_GROUP,
    "group.remote.assignor": _NO_GROUP,
    "partition.assignment.strategy": _NO_GROUP,
    "session.timeout.ms": _NO_GROUP,
    "heartbeat.interval.ms": _NO_GROUP,
    "coordinator.query.interval.ms": _NO_GROUP,
    "max.poll.interval.ms": _NO_GROUP,
    "max.poll.records": _NO_GROUP,
    "share.acknowledgement.mode": _NO_GROUP,
    "enable.auto.commit": _NO_COMMITS,
    "auto.commit.enable": _NO_COMMITS,
    "auto.commit.interval.ms": _NO_COMMITS,
    "enable.auto.offset.store": _NO_COMMITS,
    "offset.store.method": _NO_COMMITS,
    "offset.store.path": _NO_COMMITS,
    "offset.store.sync.interval.ms": _NO_COMMITS,
    "isolation.level": "kafka_chat delivers only committed records",
    "auto.offset.reset": "kafka_chat reports a lost position and never skips it silently",
    "enable.partition.eof": "kafka_chat needs it to find the end of a partition",
    "allow.auto.create.topics": "connecting and subscribing must not create topics",
    "topic.blacklist": "kafka_chat takes the chats that exist from the brokers' list of topics",
    "acks": _ACKNOWLEDGED,
    "request.required.acks": _ACKNOWLEDGED,
    "enable.idempotence": _IN_ORDER,
    "enable.gapless.guarantee": _IN_ORDER,
    "max.in.flight": _IN_ORDER,
    "max.in.flight.requests.per.connection": _IN_ORDER,
    "retries": _IN_ORDER,
    "message.send.max.retries": _IN_ORDER,
    "queuing.strategy": _IN_ORDER,
    "message.timeout.ms": _TIMELY,
    "delivery.timeout.ms": _TIMELY,
    "request.timeout.ms": _TIMELY,
    "transactional.id": _NO_TRANSACTIONS,
    "transaction.timeout.ms": _NO_TRANSACTIONS,
    "delivery.report.only.error": _REPORTED,
    "produce.offset.report": _REPORTED,
    "message.max.bytes": "use limits.message_bytes",
    "receive.message.max.bytes": _TUNED,
    "fetch.wait.max.ms": _TUNED,
    "fetch.queue.backoff.ms": _TUNED,
    "fetch.message.max.bytes": _TUNED,
    "max.partition.fetch.bytes": _TUNED,
    "fetch.max.bytes": _TUNED,
    "fetch.min.bytes": _TUNED,
    "fetch.error.backoff.ms": _TUNED,
    "queued.min.messages": _TUNED,
    "queued.max.messages.kbytes": _TUNED,
    "queue.buffering.max.ms": _TUNED,
    "linger.ms": _TUNED,
    "consume.callback.max.messages": _INTERNAL,
    "enabled_events": _INTERNAL,
    "log.queue": _INTERNAL,
    "internal.termination.signal": _INTERNAL,
    "plugin.library.paths": "it loads foreign code into the process",
    "logger": _CODE,
    "opaque": _CODE,
    "interceptors": _CODE,
    "on_delivery": _CODE,
    "on_commit": _CODE,
    "default.topic.config": _CODE,
    "default_topic_conf": _CODE,
    "msg_order_cmp": _CODE,
    "ssl_key": "use ssl.key.pem, which takes text",
    "ssl_certificate": "use ssl.certificate.pem, which takes text",
    "ssl_ca": "use ssl.ca.pem, which takes text",
    "ssl_engine_callback_data": _CODE,
}

REFUSED_PROPERTIES = frozenset(_REFUSED)

# Environment variables cannot contain dots; the names of these properties contain underscores.
_UNDERSCORED = frozenset({"log_level", *(name for name in _REFUSED if "_" in name)})

# For properties where librdkafka's message does not list the allowed values.
_ALLOWED = {
    "security.protocol": "plaintext, ssl, sasl_plaintext or sasl_ssl",
    "sasl.oauthbearer.method": "default or oidc",
    "ssl.endpoint.identification.algorithm": "none or https",
    "compression.type": "none, gzip, snappy, lz4 or zstd",
    "compression.codec": "none, gzip, snappy, lz4 or zstd",
    "broker.address.family": "any, v4 or v6",
    "client.dns.lookup": "use_all_dns_ips or resolve_canonical_bootstrap_servers_only",
}


def property_name(environment_name: str) -> str:
    """Return the property that `SASL_PASSWORD` or `LOG_LEVEL` in an environment variable's name stands for."""
    name = environment_name.lower()
    return name if name in _UNDERSCORED else name.replace("_", ".")


def refusal(name: str) -> str | None:
    """Return why a property may not be set, or None if it may (or librdkafka decides)."""
    if name in _REFUSED:
        return _REFUSED[name]
    if name.endswith("_cb"):
        return _CODE
    if name.startswith("test.mock."):
        return "use kafka.embedded"
    return None


def allowed_values(name: str) -> str | None:
    """Return the allowed values of a property if librdkafka's message lacks them, or None."""
    return _ALLOWED.get(name)


def is_secret(name: str) -> bool:
    """Return whether a property's value must never be shown."""
    return _SECRET.search(name) is not None


def masked(properties: Mapping[str, str]) -> dict[str, str]:
    """Return `properties` with every secret replaced by `***`."""
    return {name: MASK if is_secret(name) else value for name, value in properties.items()}
