"""Requests to the service over HTTP, and their errors."""

from __future__ import annotations

import json
import os
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING

import msgspec
import trio

from ..errors import KafkaChatError
from .address import Address, address_of, quoted
from .come_again import is_passing, wait_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_SECONDS = 20.0  # the service answers within 10 even with distant brokers; a history page may take a few times that


class Refused(KafkaChatError):
    """The service refuses a request, and would refuse it again; the message is a sentence.

    Attributes:
        code: the HTTP status or the close code; 0 if there is none.
        reason: the service's own sentence.
        field: the wrong parameter or field, if the service names it.
    """

    def __init__(self, sentence: str, *, code: int = 0, reason: str | None = None, field: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = sentence if reason is None else reason
        self.field = field


class Away(KafkaChatError):
    """The service cannot be reached, or cannot do it now; the message is a sentence.

    Attributes:
        code: the HTTP status; 0 without an answer.
        retry_seconds: the least wait that the service asks for.
    """

    def __init__(self, sentence: str, *, code: int = 0, retry_seconds: int = 0) -> None:
        super().__init__(sentence)
        self.code = code
        self.retry_seconds = retry_seconds


class _Followed(msgspec.Struct, frozen=True):
    chat: str
    topic: str
    exists: bool | None  # None: it may not be read


class _Following(msgspec.Struct, frozen=True):
    """What the service answers to a subscription."""

    chats: tuple[_Followed, ...]


async def ask(url: str, method: str, path: str, body: object = None, *, token: str | None = None) -> dict[str, object]:
    """Send a request to the service and return its answer.

    Args:
        url: of the service, `http://host:port`, with a path prefix if it has one.
        method: of HTTP.
        path: from `/` on, percent-encoded.
        body: sent as JSON; None for none.
        token: says who asks; None for none.

    Raises:
        Refused: it answered with an error.
        Away: it did not answer, or cannot do it now.
        SettingsError: `url` is invalid.
    """
    address = address_of(url)
    content = None if body is None else json.dumps(body).encode()
    # Abandoned where it is cancelled: it holds nothing but its socket, and ends by its timeout.
    return await trio.to_thread.run_sync(_ask, address, method, path, content, token, abandon_on_cancel=True)


async def subscribe(url: str, username: str, chats: Sequence[str], *, token: str | None = None) -> list[str]:
    """Subscribe a user to chats, and return those of them that have no topic yet; raises as `ask` does."""
    topics = "&".join(f"topic={quoted(chat)}" for chat in chats)
    answer = await ask(url, "POST", f"/subscribing/{quoted(username)}?{topics}", token=token)
    try:
        absent = {name for one in msgspec.convert(answer, _Following).chats if one.exists is False for name in (one.chat, one.topic)}
    except msgspec.ValidationError as error:
        raise Refused(f"{address_of(url).origin} does not answer as kafka_chat does; is it another service?") from error
    return [chat for chat in chats if chat in absent]


def bearer(token: str | None) -> dict[str, str]:
    """Return the header that shows a token.

    Raises:
        Refused: it has characters that no token has.
    """
    if token is None:
        return {}
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Refused("the token has characters that no token has", code=401)
    return {"Authorization": f"Bearer {token}"}


def refusal(address: Address, status: int, body: bytes, retry_after: str) -> Refused | Away:
    """Return the error for an answer, with the service's own sentence if it has one."""
    field = None
    try:
        said = json.loads(body)
        reason, field = said["error"], said.get("field")
        sentence = f"{reason} ({status})"
    except (ValueError, KeyError, TypeError):
        reason = sentence = f"{address.origin} answers with HTTP status {status}, but not as kafka_chat does; is it another service?"
    if is_passing(status):
        return Away(sentence, code=status, retry_seconds=wait_seconds(retry_after))
    return Refused(sentence, code=status, reason=reason, field=field)


def unreached(address: Address, error: BaseException) -> str:
    """Return a sentence that says why the service cannot be reached, with the system's error from inside any groups."""
    while True:
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
        if inner is None:
            break
        error = inner
    why = str(error) or "it speaks another protocol"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):  # SSL errors have their own numbers
        # Trio prefixes the address, which is in the sentence already; errors of name resolution have other numbers.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    hint = "; is `kafka-chat serve` running?" if isinstance(error, ConnectionRefusedError) else ""
    return f"{address.origin} cannot be reached: {why}{hint}"


def _ask(address: Address, method: str, path: str, content: bytes | None, token: str | None) -> dict[str, object]:
    kind = HTTPSConnection if address.secure else HTTPConnection
    connection = kind(address.host, address.port, timeout=ANSWER_SECONDS)
    headers = ({} if content is None else {"Content-Type": "application/json"}) | bearer(token)
    try:
        connection.request(method, address.prefix + path, body=content, headers=headers)
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, HTTPException) as error:
        raise Away(unreached(address, error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise refusal(address, answer.status, said, answer.headers.get("Retry-After", ""))
    try:
        found = json.loads(said)
    except ValueError as error:
        raise Refused(f"{address.origin} does not answer as kafka_chat does; is it another service?") from error
    if not isinstance(found, dict):
        raise Refused(f"{address.origin} does not answer as kafka_chat does; is it another service?")
    return found
