"""h11's receive buffer, with a limit for a request's head that does not depend on packets."""

from __future__ import annotations

import h11
from h11._receivebuffer import ReceiveBuffer, blank_line_regex

HEAD_BYTES = 32 * 1024  # request line and headers: nginx's default limit, four buffers of 8 KiB
HEADER_LINES = 100  # of a head, or trailers of a chunked body; h11 takes 12 ms for 4,000, and blocks the loop meanwhile
_TOO_LARGE = 431


class HeadBuffer(ReceiveBuffer):
    """Refuses a head by its size before h11 parses it.

    h11 checks its own limit only when a read ends inside the head: the same head passes in one packet and fails in two.

    Attributes:
        has_body: whether a request's head has come, so that lines are those around its body.
    """

    has_body = False

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines up to the first empty one, if they are complete: a head, or the trailers of a chunked body.

        Raises:
            h11.LocalProtocolError: they are too long, or too many, or cannot be a head.
        """
        data = self._data
        if len(data) > 1 and data[0] < 0x21 and data[:1] != b"\n" and data[:2] != b"\r\n":
            raise h11.LocalProtocolError("illegal request line")  # checked before the length, so that the error does not depend on packets
        end = blank_line_regex.search(data, self._multiple_lines_search)
        size = len(data) if end is None else end.end()
        if data[:1] != b"\n" and data[:2] != b"\r\n":
            what = "what follows the body of a request" if self.has_body else "the head of a request"
            _check_size(size, what)
            lines = data.count(b"\n", 0, size) - (end is not None) - (not self.has_body)  # without the empty line, and the request line
            if lines > HEADER_LINES:
                raise h11.LocalProtocolError(
                    f"{what} has more than {HEADER_LINES} lines of headers; at most {HEADER_LINES} are allowed",
                    error_status_hint=_TOO_LARGE,
                )
        lines_found: list[bytearray] | None = super().maybe_extract_lines()
        return lines_found

    def skip_empty_lines(self) -> None:
        """Drop empty lines before a request line: some clients send one after a body (RFC 9112 section 2.2)."""
        while self._data[:2] == b"\r\n":
            self._extract(2)

    def is_next_line_obviously_invalid_request_line(self) -> bool:
        """Return whether no request can begin like this; half of an empty line may be followed by the other half."""
        return self._data != b"\r" and bool(super().is_next_line_obviously_invalid_request_line())

    def maybe_extract_next_line(self) -> bytearray | None:
        """Return the next line if it is complete: the line before a chunk.

        Raises:
            h11.LocalProtocolError: it is too long.
        """
        line: bytearray | None = super().maybe_extract_next_line()
        _check_size(len(self) if line is None else len(line), "a line before a chunk")
        return line


def _check_size(size: int, what: str) -> None:
    if size > HEAD_BYTES:
        raise h11.LocalProtocolError(
            f"{what} has more than {HEAD_BYTES} bytes; at most {HEAD_BYTES} are allowed", error_status_hint=_TOO_LARGE
        )
