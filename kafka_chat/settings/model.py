"""Every setting, with its default and its meaning."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .kafka_properties import masked

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service listens.

    Attributes:
        host: a name or an address of this machine.
        port: 0 picks a free one.
        workers: the number of processes; each has its own limits.
        drain_seconds: how long clients may take to leave at a shutdown.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8001
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    drain_seconds: Seconds = 5.0


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which brokers to use, and how to reach them.

    Attributes:
        bootstrap_servers: `host:port[,host:port…]`, or with a `PROTOCOL://` that is `security.protocol`; None if `embedded`.
        embedded: use our own broker, in this process: for trying things out.
        properties: handed to librdkafka as they are (TLS, SASL, …).
        property_files: property -> the file that its value is in, less one line break at its end.
    """

    bootstrap_servers: str | None = None
    embedded: bool | None = None
    properties: dict[str, str] = {}
    property_files: dict[str, str] = {}

    def __repr__(self) -> str:
        """Return it without secrets, since it may end up in a log or a traceback."""
        shown = masked(self.properties)
        return f"KafkaSettings(bootstrap_servers={self.bootstrap_servers!r}, embedded={self.embedded!r}, properties={shown!r})"


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which topics are chats, and which of them everybody follows."""

    prefix: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\A[A-Za-z0-9._-]+\Z")] = "kafka.chat."
    default: tuple[str, ...] = ("global",)


class SubscriptionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topic that keeps the subscriptions."""

    topic: Annotated[str, Meta(min_length=1, max_length=249, pattern=r"\A[A-Za-z0-9._-]+\Z")] = "kafka_chat-subscriptions"


class SendingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether clients may send. None: only with the embedded broker."""

    enabled: bool | None = None


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which web pages may use it, under which names; `*` is any.

    Attributes:
        origins: of pages.
        hosts: names that clients may address it by; addresses and `localhost` always are.
    """

    origins: tuple[str, ...] = ("*",)
    hosts: tuple[str, ...] = ("*",)


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One who signs tokens.

    Attributes:
        issuer: `iss`, letter for letter.
        audience: has to be in `aud`.
        jwks_url: where its public keys are.
        keys_file: or the file that they are in, PEM or JWKS.
        secret_file: or the file of the secret that it shares with us, 32 bytes or more.
        ca_file: who vouches for `jwks_url`; None: whom the system trusts.
        algorithms: that it signs with; None: RS256, ES256, EdDSA, and HS256 with a secret.
        users: whom it may speak for; needed where there are several issuers.
        user_claim: names the user.
        chats_claim: names chats to read, or `read`, `send` and `create` with chats.
        roles_claim: names roles; a path leads through objects. None: it grants none.
    """

    issuer: str | None = None
    audience: str | None = None
    jwks_url: str | None = None
    keys_file: str | None = None
    secret_file: str | None = None
    ca_file: str | None = None
    algorithms: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    user_claim: str = "sub"
    chats_claim: str = "chats"
    roles_claim: str | tuple[str, ...] | None = None


class EveryoneSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each valid token may do, as patterns of chats."""

    read: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    create: tuple[str, ...] = ()


class RoleSettings(EveryoneSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a role may do; `act_as`: which users its tokens may name besides their own."""

    act_as: tuple[str, ...] = ()


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who signs tokens, and what they allow; docs/access.md.

    Attributes:
        issuers: by a name of the operator's. None of them: no tokens, everybody may do everything.
        roles: by the names that tokens have them by.
        everyone: what each valid token may, besides.
        anonymous: chats that may be read without a token.
        cookie: the name of the cookie that may have the token.
        query: whether `?access_token=` may have it.
        leeway_seconds: how far the issuer's clock and ours may be apart.
        max_lifetime_hours: how long a token may be valid.
    """

    issuers: dict[str, IssuerSettings] = {}
    roles: dict[str, RoleSettings] = {}
    everyone: EveryoneSettings = EveryoneSettings()
    anonymous: tuple[str, ...] = ()
    cookie: str | None = None
    query: bool = False
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 30.0
    max_lifetime_hours: Annotated[float, Meta(gt=0, le=8784)] = 24.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one client, and of all clients together.

    Attributes:
        message_bytes: a record's value, and the frame or event that it becomes, `meta` included.
        client_message_bytes: a message of a client (close code 1009), and an HTTP body (413).
        chats_per_user: subscriptions of one user.
        subscription_records_per_second: subscription changes of all clients together; bursts of ten times as many.
        absent_chats: chats without a topic that all clients together may name in `chat`.
        connections: of any kind; None: what the limit of open files leaves, and what fits in half of the memory.
        catching_up: how many clients may be reading older messages at the same time.
        write_seconds: how long a write may make no progress.
        idle_seconds: how long a connection may wait between two requests.
        ping_seconds: how often a WebSocket is pinged.
        pong_seconds: how long it may then stay silent.
    """

    message_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 1_000_000
    client_message_bytes: Annotated[int, Meta(ge=1024, le=16 << 20)] = 65_536
    chats_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 200
    subscription_records_per_second: Annotated[int, Meta(ge=1)] = 1000
    absent_chats: Annotated[int, Meta(ge=1)] = 10_000
    connections: Annotated[int, Meta(ge=1)] | None = None
    catching_up: Annotated[int, Meta(ge=1)] = 5000
    write_seconds: Seconds = 30.0
    idle_seconds: Seconds = 75.0
    ping_seconds: Seconds = 25.0
    pong_seconds: Seconds = 10.0


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of Kafka's data is kept in memory, in bytes."""

    bytes: Annotated[int, Meta(ge=65_536)] = 256 << 20


class TailSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most consumers that follow the live end; one is used per 500 followed partitions."""

    consumers: Annotated[int, Meta(ge=1, le=64)] = 8


class PageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many consumers read older messages at the same time."""

    readers: Annotated[int, Meta(ge=1, le=64)] = 4


class HistorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How history pages may be cached.

    Attributes:
        cache: who may cache a page that stays the same: only the client, every cache on the way, or no one.
        cache_seconds: how long such a page is kept; deleted messages may stay in caches for that time.
    """

    cache: Literal["private", "public", "none"] = "private"
    cache_seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 3600


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, one attribute per section."""

    server: ServerSettings = ServerSettings()
    kafka: KafkaSettings = KafkaSettings()
    chats: ChatSettings = ChatSettings()
    subscriptions: SubscriptionSettings = SubscriptionSettings()
    sending: SendingSettings = SendingSettings()
    access: AccessSettings = AccessSettings()
    auth: AuthSettings = AuthSettings()
    limits: Limits = Limits()
    memory: MemorySettings = MemorySettings()
    tail: TailSettings = TailSettings()
    pages: PageSettings = PageSettings()
    history: HistorySettings = HistorySettings()

    @property
    def sending_enabled(self) -> bool:
        """Whether clients may send: the setting, or by default only with the embedded broker."""
        return bool(self.kafka.embedded) if self.sending.enabled is None else self.sending.enabled
