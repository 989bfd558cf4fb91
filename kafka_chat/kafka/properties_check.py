"""Asks librdkafka whether it accepts the operator's properties, without connecting anywhere."""

from __future__ import annotations

import logging
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, Producer

from ..errors import ServiceFailed
from ..settings.kafka_properties import PropertyProblem, allowed_values
from ..settings.model import KafkaSettings
from .connect import ClientConfig, not_made

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .connect import Property

_TOKEN_ENDPOINT = "sasl.oauthbearer.token.endpoint.url"
_METADATA = "sasl.oauthbearer.metadata.authentication.type"
_UNKNOWN = "No such configuration property"
_NO_NUMBER = "Invalid value for configuration property"  # of a property that takes a number

_BEGINS_AS_NUMBER = re.compile(r"\s*[+-]?[0-9]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")
_LARGEST = 2**31 - 1


def properties_problem(properties: Mapping[str, str]) -> PropertyProblem | None:
    """Return librdkafka's problem with `properties`, or None.

    Files (`ssl.ca.location` and so on) are opened; nothing is sent.

    Args:
        properties: librdkafka's names and values; no callbacks.

    Raises:
        ServiceFailed: there is no memory or thread for the clients that try them.
    """
    if (name := _no_number(properties)) is not None:
        return PropertyProblem(f"a whole number is needed, {_LARGEST} at most", name)
    # First each property alone, then all together: the second sets up TLS and SASL.
    alone = {name: value for name, value in properties.items() if name != "security.protocol"}
    together = _without_tokens(properties)
    problem = _refused(alone) or _missing(properties) or _refused(together) or _refused_with_ours(together)
    return None if problem is None else _told(problem, properties)


def _told(problem: str, properties: Mapping[str, str]) -> PropertyProblem:
    """Return a problem together with the name of its property."""
    # librdkafka's sentence contains the property's name or an alias; the longest name found is the right one.
    name = max((name for name in properties if name in problem), key=len, default=None)
    of_one = problem.startswith("Invalid value")
    if name is None and of_one:
        name = next((one for one, value in properties.items() if _refused({one: value}) == problem), None)
    if name is None:
        return PropertyProblem(problem)
    if of_one and (allowed := allowed_values(name)) is not None:
        return PropertyProblem(f"{allowed} is needed", name)
    unread = _unread(properties[name]) if name.endswith((".location", ".file")) else None
    return PropertyProblem(unread or f"librdkafka says: {problem}", name, unknown=problem.startswith(_UNKNOWN))


def _unread(path: str) -> str | None:
    """Return why a file cannot be read (librdkafka only gives OpenSSL's error numbers); None if it can."""
    try:
        if not Path(path).is_dir():
            with Path(path).open("rb"):
                pass
    except (OSError, ValueError) as error:
        return f"a file that can be read is needed ({getattr(error, 'strerror', None) or error})"
    return None


def _no_number(properties: Mapping[str, str]) -> str | None:
    """Return a numeric property whose value has trailing text, which librdkafka silently ignores.

    It also truncates a number that is too large, and reads one with a leading 0 as octal.
    """
    for name, value in properties.items():
        if _BEGINS_AS_NUMBER.match(value) is None or (_NUMBER.fullmatch(value) is not None and abs(int(value)) <= _LARGEST):
            continue
        if (_refused({name: "x"}) or "").startswith(_NO_NUMBER):
            return name
    return None


def _refused(properties: Mapping[str, str]) -> str | None:
    """Return why librdkafka rejects `properties`."""
    return _says(lambda: Producer({**properties, "logger": _silent()}))


def _refused_with_ours(properties: Mapping[str, str]) -> str | None:
    """Return why librdkafka rejects `properties` together with those of one of the service's clients."""
    ours = ClientConfig(KafkaSettings(bootstrap_servers="none:0", properties=dict(properties)))

    def offline(config: Mapping[str, Property]) -> dict[str, Property]:
        # Without a broker it connects nowhere.
        return {**{name: value for name, value in config.items() if name != "bootstrap.servers"}, "logger": _silent()}

    def consume() -> None:
        with closing(Consumer(offline(ours.consumer()))):
            pass

    return (
        _says(consume)
        or _says(lambda: Producer(offline(ours.producer(**{"enable.idempotence": True}))))
        or _says(lambda: Producer(offline(ours.admin())))
    )


def _says(make: Callable[[], object]) -> str | None:
    """Return librdkafka's error when the client is created, or None."""
    try:
        make()
    except KafkaException as error:
        if isinstance(unmade := not_made(error), ServiceFailed):  # which no other property would help
            raise unmade from error
        text: str = error.args[0].str()
        return re.sub(r"^Failed to create (?:producer|consumer): ", "", text.strip())
    except (ValueError, ImportError) as error:  # confluent-kafka's own checks; a missing AWS library
        return str(error)
    return None


def _silent() -> logging.Logger:
    """Return a logger that discards everything: the service's clients will log the same."""
    silent = logging.Logger("kafka_chat.kafka.check")
    silent.disabled = True
    return silent


def _missing(properties: Mapping[str, str]) -> str | None:
    """Return a missing property that librdkafka notices only when it requests its first token, and then waits forever."""
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", ""))
    if not properties.get("security.protocol", "").lower().startswith("sasl") or mechanism.upper() != "OAUTHBEARER":
        return None
    if properties.get(_METADATA, "none") != "none" or properties.get("enable.sasl.oauthbearer.unsecure.jwt", "").lower() == "true":
        return None
    if properties.get("sasl.oauthbearer.method", "default").lower() == "oidc":
        return None
    return "sasl.mechanism OAUTHBEARER needs sasl.oauthbearer.method oidc, or no token is ever fetched"


def _without_tokens(properties: Mapping[str, str]) -> dict[str, str]:
    """Return `properties` changed so that a client does not wait for a token.

    A client with OAUTHBEARER requests its first token at once, and closing it waits for the answer (20 s, measured).
    """
    kept = dict(properties)
    if kept.pop(_METADATA, "none") != "none":
        kept.pop("sasl.oauthbearer.method", None)
    if _TOKEN_ENDPOINT in kept:
        kept[_TOKEN_ENDPOINT] = "http://127.0.0.1:9/"  # the discard port, where nothing listens
    return kept
