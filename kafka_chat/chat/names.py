"""Which names of chats, topics and users are valid, and how chats and topics map to each other."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ..errors import RequestError

TOPIC_LENGTH = 249  # Kafka's own limit for a topic name, in characters
USERNAME_BYTES = 255  # of UTF-8, after normalisation
# Normalisation takes quadratic time in the number of consecutive combining marks: 30,000 block everything for a second.
SHRINKS = 3  # NFC makes text at most this many times shorter, in bytes of UTF-8 (a Korean syllable of three letters)
COMPARED_CHARACTERS = 340  # longer text is compared as it is: no spelling of a username is that long (85 Greek letters with three marks)
MARKS_IN_A_ROW = 30  # likewise text with more marks on one letter: Unicode's own limit, UAX #15 section 13

_CHAT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class ChatNames:
    """Chat names and topic names under one prefix.

    Args:
        prefix: the part of a topic's name before its chat's name, for example `kafka.chat.`.
    """

    prefix: str

    def topic(self, chat: str) -> str:
        """Return the topic of a legal chat name."""
        return self.prefix + chat

    def chat(self, topic: str) -> str:
        """Return the chat of a topic under the prefix."""
        return topic[len(self.prefix) :]

    def parse(self, text: str, *, field: str) -> str:
        """Return the chat named by its own name or by its topic's.

        Args:
            text: a chat (`room1`) or a topic (`kafka.chat.room1`); one leading prefix is removed.
            field: the source of the name, for the error.

        Raises:
            RequestError: empty, too long, or a character that a Kafka topic cannot have.
        """
        chat = text.removeprefix(self.prefix)
        if not chat:
            raise RequestError(f"{field} is empty; a chat such as room1, or its topic {self.prefix}room1, is needed", field=field)
        longest = TOPIC_LENGTH - len(self.prefix)
        if len(chat) > longest:
            raise RequestError(f"{field} names a chat of {len(chat)} characters; at most {longest} are allowed", field=field)
        if not _CHAT.fullmatch(chat):
            sentence = f"{field} is {_shown(chat)}; a chat is made of letters A-Z a-z, digits, dot, underscore and hyphen"
            raise RequestError(sentence, field=field)
        return chat


def parse_username(raw: bytes) -> str:
    """Return the username in a raw path segment.

    Args:
        raw: the percent-encoded segment.

    Returns:
        The name in Unicode NFC, 1 to 255 bytes of UTF-8.

    Raises:
        RequestError: bad UTF-8, empty, too long, a control character or a slash.
    """
    try:
        name = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError("username is not UTF-8; percent-encode its UTF-8 bytes", field="username") from error
    return check_username(name)


def check_username(name: str, *, field: str = "username") -> str:
    """Return `name` in Unicode NFC; raise `RequestError` about `field` if it cannot be a username."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if size <= SHRINKS * USERNAME_BYTES:
        name = unicodedata.normalize("NFC", name)
        size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= USERNAME_BYTES:
        raise RequestError(f"{field} has {size} bytes of UTF-8; 1 to {USERNAME_BYTES} are allowed", field=field)
    if "/" in name:
        raise RequestError(f"{field} has a slash, which is not allowed", field=field)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise RequestError(f"{field} has a control character, which is not allowed", field=field)
    return name


def comparable(text: str) -> str:
    """Return a sender or a tag in the form used for comparisons: Unicode NFC, unless it is too long for a name.

    A word may have several spellings in Unicode: macOS may encode the same text differently.
    """
    if text.isascii() or len(text) > COMPARED_CHARACTERS:
        return text
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MARKS_IN_A_ROW:
            return text
    return unicodedata.normalize("NFC", text)


def _shown(text: str) -> str:
    """Return at most 60 characters of `text`, quoted for a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
