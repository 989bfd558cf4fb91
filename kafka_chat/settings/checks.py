"""Checks of settings beyond their types."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING

import msgspec

from ..chat.names import ChatNames
from ..errors import RequestError, SettingsError
from .auth_checks import check_auth
from .kafka_properties import MASK, is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .kafka_properties import PropertyProblem
    from .model import Settings

DEFAULT = "the default"  # the source of a value that is not set

_BROKER = re.compile(
    r"(?:(?P<protocol>plaintext|ssl|sasl_plaintext|sasl_ssl)://)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.IGNORECASE
)
_HOST_NAME = re.compile(r"(?!.{254})[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s?#@\\]+", re.IGNORECASE | re.ASCII)
# Of librdkafka's time-outs, in ms: what a connection, or an answer, of brokers that are half a second away may take.
_LEAST_MS = {"socket.timeout.ms": 10_000, "api.version.request.timeout.ms": 10_000, "socket.connection.setup.timeout.ms": 5_000}
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def checked(settings: Settings, source: Callable[[str], str]) -> Settings:
    """Return `settings` after checks, with default chats, origins and hosts normalised.

    Args:
        settings: settings whose values have the right types.
        source: returns the source of a key's value.

    Raises:
        SettingsError: a value is wrong, or contradicts another one.
    """
    _check_server(settings, source)
    _check_brokers(settings, source)
    _check_topic(settings, source)
    _check_pings(settings, source)
    check_auth(settings, source)
    _check_time_outs(settings, source)
    chats = msgspec.structs.replace(settings.chats, default=_default_chats(settings, source))
    access = msgspec.structs.replace(settings.access, origins=_origins(settings, source), hosts=_hosts(settings, source))
    return msgspec.structs.replace(settings, chats=chats, access=access)


def refuse_properties(
    properties: Mapping[str, str], source: Callable[[str], str], problem_of: Callable[[Mapping[str, str]], PropertyProblem | None]
) -> None:
    """Raise `SettingsError` if librdkafka rejects a property.

    Args:
        properties: librdkafka's names and values.
        source: returns the source of a key's value.
        problem_of: returns librdkafka's problem with some properties, or None.
    """
    problem = problem_of(properties) if properties else None
    if problem is None:
        return
    sentence, name, unknown = problem
    for one, value in properties.items():
        if is_secret(one) and value:
            sentence = sentence.replace(value, MASK)
    if name is None:
        raise SettingsError(f"kafka.properties: librdkafka rejects them: {sentence}")
    key = f"kafka.properties.{name}"
    if unknown:
        raise SettingsError(f"{source(key)}: there is no property {name} in librdkafka; its configuration reference lists them")
    raise SettingsError(f"{source(key)}: {key} is {MASK if is_secret(name) else shown(properties[name])}; {sentence}")


def shown(text: str) -> str:
    """Return at most 80 characters of text, quoted for an error."""
    return json.dumps(text if len(text) <= 80 else text[:77] + "...", ensure_ascii=False)


def _check_server(settings: Settings, source: Callable[[str], str]) -> None:
    host = settings.server.host
    if not _is_host(host):
        needed = "the name or the address of this machine, such as 127.0.0.1 or 0.0.0.0, is needed"
        raise SettingsError(f"{source('server.host')}: server.host is {shown(host)}; {needed}")


def _is_host(host: str) -> bool:
    if _HOST_NAME.fullmatch(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_brokers(settings: Settings, source: Callable[[str], str]) -> None:
    """Check that brokers are named correctly, or the embedded one is used."""
    brokers = settings.kafka.bootstrap_servers
    if brokers is not None and not all(_is_broker(broker.strip()) for broker in brokers.split(",")):
        key = "kafka.bootstrap_servers"
        raise SettingsError(f"{source(key)}: {key} is {shown(brokers)}; HOST:PORT, or several separated by commas, is needed")
    protocol = settings.kafka.properties.get("security.protocol", "plaintext")
    for broker in (brokers or "").split(","):
        match = _BROKER.fullmatch(broker.strip())
        if match is not None and match["protocol"] and match["protocol"].lower() != protocol.lower():
            key = "kafka.properties.security.protocol"
            raise SettingsError(
                f"{source('kafka.bootstrap_servers')}: kafka.bootstrap_servers has {shown(broker.strip())}, but {key} is {shown(protocol)} "
                f"({source(key)}); one protocol for all brokers is needed, such as {key}: {match['protocol'].lower()}"
            )
    if not settings.kafka.embedded:
        return
    if brokers is not None:
        raise SettingsError(
            f"{source('kafka.embedded')}: kafka.embedded is true, but {source('kafka.bootstrap_servers')} sets "
            f"kafka.bootstrap_servers to {shown(brokers)}; only one of the two is allowed"
        )
    if protocol.lower() != "plaintext":
        key = "kafka.properties.security.protocol"
        raise SettingsError(
            f"{source(key)}: {key} is {shown(protocol)}, which the embedded broker does not speak; name your brokers in "
            "kafka.bootstrap_servers, or remove the property"
        )


def _is_broker(broker: str) -> bool:
    match = _BROKER.fullmatch(broker)
    return match is not None and 0 < int(match["port"]) < 65_536


def _origins(settings: Settings, source: Callable[[str], str]) -> tuple[str, ...]:
    """Return the origins in the form that browsers send: in lower case, without a default port."""
    for origin in settings.access.origins:
        if not origin.isascii() or not _ORIGIN.fullmatch(origin):
            needed = "an origin such as https://chat.example (in ASCII, without a path), or * for any, is needed"
            raise SettingsError(f"{source('access.origins')}: access.origins has {shown(origin)}; {needed}")
    origins = (origin.lower() for origin in settings.access.origins)
    return tuple(origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], "/")) for origin in origins)


def _hosts(settings: Settings, source: Callable[[str], str]) -> tuple[str, ...]:
    """Return the hosts in the form used for comparisons: in lower case, without a final dot."""
    for host in settings.access.hosts:
        if host != "*" and not (host.isascii() and _HOST_NAME.fullmatch(host)):
            needed = "a name such as chat.example (in ASCII, without a port), or * for any, is needed"
            raise SettingsError(f"{source('access.hosts')}: access.hosts has {shown(host)}; {needed}")
    return tuple(host.lower().removesuffix(".") for host in settings.access.hosts)


def _check_topic(settings: Settings, source: Callable[[str], str]) -> None:
    topic, prefix = settings.subscriptions.topic, settings.chats.prefix
    if topic in (".", ".."):
        raise SettingsError(f"{source('subscriptions.topic')}: subscriptions.topic is {shown(topic)}; a name that Kafka allows is needed")
    if topic.startswith(prefix):
        raise SettingsError(
            f"{source('subscriptions.topic')}: subscriptions.topic is {shown(topic)}, which begins with chats.prefix, "
            f"{shown(prefix)} ({source('chats.prefix')}); a topic that is not a chat is needed"
        )


def _check_pings(settings: Settings, source: Callable[[str], str]) -> None:
    limits = settings.limits
    if limits.pong_seconds > limits.ping_seconds:
        raise SettingsError(
            f"{source('limits.pong_seconds')}: limits.pong_seconds is {limits.pong_seconds:g}, which is more than "
            f"limits.ping_seconds, {limits.ping_seconds:g} ({source('limits.ping_seconds')})"
        )


def _check_time_outs(settings: Settings, source: Callable[[str], str]) -> None:
    for name, least in _LEAST_MS.items():
        value = settings.kafka.properties.get(name, "")
        if value.isdecimal() and int(value) < least:
            key = f"kafka.properties.{name}"
            raise SettingsError(
                f"{source(key)}: {key} is {shown(value)}; at least {least} is needed, or brokers that answer slowly are never reached; how "
                "long the service waits follows their measured times"
            )


def _default_chats(settings: Settings, source: Callable[[str], str]) -> tuple[str, ...]:
    names = ChatNames(settings.chats.prefix)
    try:
        return tuple(dict.fromkeys(names.parse(chat, field="chats.default") for chat in settings.chats.default))
    except RequestError as error:
        raise SettingsError(f"{source('chats.default')}: {error}") from error
