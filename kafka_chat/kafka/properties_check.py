"""Asks librdkafka whether it takes the properties that an operator has set, without connecting anywhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKEN_ENDPOINT = "sasl.oauthbearer.token.endpoint.url"
_METADATA = "sasl.oauthbearer.metadata.authentication.type"


def properties_problem(properties: Mapping[str, str]) -> str | None:
    """Return what librdkafka says against `properties`, or None.

    Files (`ssl.ca.location` and so on) are opened; nothing is sent to anybody.

    Args:
        properties: librdkafka's names and values; none of those that take code.
    """
    # First what each property is for itself, then what they are together: the second has TLS and SASL set up.
    alone = {name: value for name, value in properties.items() if name != "security.protocol"}
    return _refused(alone) or _missing(properties) or _refused(_without_tokens(properties))


def _refused(properties: Mapping[str, str]) -> str | None:
    """Return why librdkafka makes no client of `properties`."""
    silent = logging.Logger("kafka_chat.kafka.check")  # the clients that stay will log what there is to log
    silent.disabled = True
    try:
        Producer({**properties, "logger": silent})
    except KafkaException as error:
        text: str = error.args[0].str()
        return text.strip().removeprefix("Failed to create producer: ")
    except (ValueError, ImportError) as error:  # confluent-kafka's own checks, and a library of AWS that is not installed
        return str(error)
    return None


def _missing(properties: Mapping[str, str]) -> str | None:
    """Return what librdkafka would only notice when it needs its first token, and then wait for for ever."""
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", ""))
    if not properties.get("security.protocol", "").lower().startswith("sasl") or mechanism.upper() != "OAUTHBEARER":
        return None
    if properties.get(_METADATA, "none") != "none" or properties.get("enable.sasl.oauthbearer.unsecure.jwt", "").lower() == "true":
        return None
    if properties.get("sasl.oauthbearer.method", "default").lower() == "oidc":
        return None
    return "sasl.mechanism OAUTHBEARER needs sasl.oauthbearer.method oidc, or no token is ever fetched"


def _without_tokens(properties: Mapping[str, str]) -> dict[str, str]:
    """Return `properties` so that a client made of them does not wait for a token.

    A client that uses OAUTHBEARER asks for its first token at once, and its end waits for the answer (20 s, measured).
    """
    kept = dict(properties)
    if kept.pop(_METADATA, "none") != "none":
        kept.pop("sasl.oauthbearer.method", None)
    if _TOKEN_ENDPOINT in kept:
        kept[_TOKEN_ENDPOINT] = "http://127.0.0.1:9/"  # the discard port, where nobody listens
    return kept
