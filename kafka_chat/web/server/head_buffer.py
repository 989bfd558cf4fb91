"""h11's receive buffer, with one limit for a head, however packets split it."""

from __future__ import annotations

import h11
from h11._receivebuffer import ReceiveBuffer, blank_line_regex

HEAD_BYTES = 32 * 1024  # request line and headers: what nginx lets through by default, four buffers of 8 KiB
HEADER_LINES = 100  # of a head, or behind a chunked body; 4,000 cost h11 12 ms, in which nobody else has a turn
_TOO_LARGE = 431


class HeadBuffer(ReceiveBuffer):
    """Refuses a head by its size before h11 looks into it.

    h11 itself checks its limit only when a read ends in the middle: the same head passes in one packet and fails in two.
    """

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines up to the first empty one, if they are all there: a head, or what follows a chunked body.

        Raises:
            h11.LocalProtocolError: they are too long, or too many; or what there is cannot be a head.
        """
        data = self._data
        if len(data) > 1 and data[0] < 0x21 and data[:1] != b"\n" and data[:2] != b"\r\n":
            raise h11.LocalProtocolError("illegal request line")  # before it is too long: else packets would decide which it is
        end = blank_line_regex.search(data, self._multiple_lines_search)
        size = len(data) if end is None else end.end()
        if data[:1] != b"\n" and data[:2] != b"\r\n":
            _check_size(size, "the head of a request")
            lines = data.count(b"\n", 0, size) - (1 if end is None else 2)  # without the request line, and the empty one
            if lines > HEADER_LINES:
                raise h11.LocalProtocolError(
                    f"a request has more than {HEADER_LINES} lines of headers; at most {HEADER_LINES} are allowed",
                    error_status_hint=_TOO_LARGE,
                )
        lines_found: list[bytearray] | None = super().maybe_extract_lines()
        return lines_found

    def maybe_extract_next_line(self) -> bytearray | None:
        """Return the next line if it is there: what stands before a chunk.

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
