"""The bytes of a cursor's parts: numbers, checksums, base64."""

from __future__ import annotations

import string
from array import array
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING
from zlib import crc32

from ..errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECK_BYTES = 2  # bytes of CRC-32 at the end of a part: one in 65,536 damaged cursors passes

_VARINT_BYTES = 10  # of 64 bits
_BASE64 = (string.ascii_letters + string.digits + "-_").encode()


class PartBytes:
    """The unread rest of a part."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise malformed()
        self._at += size
        return piece

    def varint(self) -> int:
        """Return the next number, LEB128."""
        numbers = array("q")
        self.read_varints(numbers, 1)
        return numbers[0]

    def read_varints(self, numbers: array[int], count: int) -> None:
        """Append the next `count` numbers. One function takes 60 ns a byte; a call for each number takes 400."""
        data, at, append = self._data, self._at, numbers.append
        try:
            for _ in range(count):
                number = data[at]
                at += 1
                if number >= 0x80:
                    number &= 0x7F
                    for shift in range(7, 7 * _VARINT_BYTES, 7):
                        byte = data[at]
                        at += 1
                        number |= (byte & 0x7F) << shift
                        if byte < 0x80:
                            break
                    else:
                        raise malformed()
                append(number)
        except (IndexError, OverflowError) as error:  # the part is too short, or a number exceeds 63 bits
            raise malformed() from error
        self._at = at

    def check_sum(self) -> None:
        """Remove the checksum from the end, and compare it with the data before it."""
        said = self._data[-CHECK_BYTES:]
        self._data = self._data[:-CHECK_BYTES]
        if not self._data or said != checksum(self._data):
            raise malformed()

    def check_end(self) -> None:
        """Raise `malformed` if anything is left."""
        if self:
            raise malformed()


def checksum(data: bytes, begun: int = 0) -> bytes:
    """Return the checksum of a part.

    Args:
        data: of the part.
        begun: the CRC-32 of the bytes before it.
    """
    return (crc32(data, begun) & 0xFFFF).to_bytes(CHECK_BYTES, "big")


def varint(number: int) -> bytes:
    """Return a number, LEB128, unsigned."""
    if number < 0x80:
        return bytes((number,))
    pieces = bytearray()
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)


def encoded(data: bytes) -> bytes:
    """Return bytes as base64url without padding, ASCII."""
    return urlsafe_b64encode(data).rstrip(b"=")


def decoded(part: str) -> bytes:
    """Return the bytes of a part; raise `malformed` if it is not base64url."""
    if not part or not part.isascii() or part.encode().translate(None, _BASE64) or len(part) % 4 == 1:
        raise malformed()
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def parts_of(text: str) -> Iterator[str]:
    """Yield the texts between dots, one at a time: `split` would make a million strings of a megabyte of dots."""
    begin = 0
    while (end := text.find(".", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]


def malformed() -> RequestError:
    """Return the error for a text that is not a cursor."""
    sentence = "cursor: this is not a cursor; send one exactly as this service gave it, or leave it out to start over"
    return RequestError(sentence, field="cursor")
