"""A `ResumingClient`'s record of one connection, and the ways to end it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class Cut(StrEnum):
    """How a connection ends."""

    CLOSE = "close"  # with a close frame
    FIN = "FIN"
    RESET = "RST"
    FREEZE = "freeze"  # nothing is read for a while, then RST
    BLACK_HOLE = "black hole"  # nothing is read or said any more, and the connection stays


class Meta(msgspec.Struct):
    """What stands in `meta`; fields of all types of frames together."""

    type: str | None = None
    id: str = ""
    partition: int = -1
    offset: int = -1
    time: int | None = None
    key: object = None
    headers: list[list[object]] = []
    cursor: str | None = None
    chat: str = ""
    chats: list[str] = []
    resume: str = ""
    first_lost: int = -1
    first_left: int = -1
    cause: str = ""
    after_ms: int = 0
    re: object = None
    code: int = 0
    message: str = ""
    field: str | None = None
    positions: dict[str, int] = {}
    exists: bool = False


class FrameV1(msgspec.Struct):
    """A text frame of the service."""

    meta: Meta
    sender: str = ""
    text: str = ""
    tag: str | None = None
    chat: str = ""


decode = msgspec.json.Decoder(FrameV1).decode


class Refused(Exception):
    """The service does not accept us now.

    Attributes:
        code: of HTTP or of the close frame.
        retry_after: seconds, where it says so.
    """

    def __init__(self, code: int, reason: str, retry_after: float | None) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.retry_after = retry_after


@dataclass
class Visit:
    """One connection, from its beginning to its end.

    Attributes:
        began: when connecting began; times are trio's, in seconds.
        accepted: when the handshake was answered.
        said_hello: when `hello` came.
        first_message: when the first message came.
        live: when `live` came.
        resume: as `hello` has it.
        hello: the frame.
        controls: the control frames, `hello` included.
        messages: how many came.
        before_live: how many of them before `live`.
        close_code: of the service's close frame; 1006 where the connection ended without; None while it is open.
        close_reason: of that frame.
    """

    began: float
    accepted: float = 0.0
    said_hello: float | None = None
    first_message: float | None = None
    live: float | None = None
    hello: Meta | None = None
    controls: list[Meta] = field(default_factory=list)
    messages: int = 0
    before_live: int = 0
    close_code: int | None = None
    close_reason: str = ""

    @property
    def resume(self) -> str | None:
        return None if self.hello is None else self.hello.resume
