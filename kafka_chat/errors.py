"""Every error that this project raises, with its status and close code."""

from __future__ import annotations

# Ends the sentence of an error after which the outcome is unknown: a broker took the records and has not answered.
MAY_BE_WRITTEN = "; it may or may not have been written"


class KafkaChatError(Exception):
    """The base class; the message is a sentence for the person who has to act."""


class SettingsError(KafkaChatError):
    """Exit code 2. Names the key, the value, its source, and what is allowed."""


class ServiceFailed(KafkaChatError):
    """Exit code 1. The service could not start, or has failed; the cause is logged where it happened, with its traceback."""


class RequestError(KafkaChatError):
    """A request cannot be carried out: the client must change something.

    HTTP: `status` with `{"error": sentence, "field": field}`, also for a WebSocket that is not accepted yet.

    Attributes:
        field: the name of the parameter or body field that is wrong, or None.
        status: the HTTP status; 400 unless a subclass says otherwise.
        headers: further response headers.
    """

    status = 400

    def __init__(self, sentence: str, *, field: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.field = field
        self.headers = headers or {}


class SendingOff(RequestError):
    """403: `sending.enabled` is false; the same sentence for every route and op."""

    status = 403

    def __init__(self) -> None:
        super().__init__("sending is off here; the setting sending.enabled: true switches it on")


class NotFound(RequestError):
    """404: the chat has no topic."""

    status = 404


class Conflict(RequestError):
    """409: a limit per user, or a chat that everybody follows."""

    status = 409


class TooLarge(RequestError):
    """413: a body over `limits.client_message_bytes`, or a message over `limits.message_bytes`."""

    status = 413


class Overloaded(RequestError):
    """503 with `Retry-After`: no slot is free now (`limits.connections`, draining); try again later."""

    status = 503

    def __init__(self, sentence: str, *, retry_after_seconds: int = 5) -> None:
        super().__init__(sentence, headers={"Retry-After": str(retry_after_seconds)})


class BrokerError(KafkaChatError):
    """503 with `Retry-After`: Kafka did not carry out the request; try again later.

    Attributes:
        topic: its topic, if known.
        partition: its partition, if known.
        status: the HTTP status.
    """

    status = 503

    def __init__(self, sentence: str, *, topic: str | None = None, partition: int | None = None) -> None:
        super().__init__(sentence)
        self.topic = topic
        self.partition = partition


class BrokerUnreachable(BrokerError):
    """No broker answered in time."""


class TopicGone(BrokerError):
    """The topic or the partition does not exist, or has been replaced (its id changed)."""


class PositionLost(KafkaChatError):
    """A position that the log no longer has.

    Attributes:
        asked: the requested offset.
        first_left: the first offset that can be read instead.
    """

    def __init__(self, *, asked: int, first_left: int) -> None:
        super().__init__(f"offset {asked} is gone; the first that is left is {first_left}")
        self.asked = asked
        self.first_left = first_left


def first_error(error: BaseException) -> BaseException:
    """Return the first error in a group, however deep; any other error unchanged."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
