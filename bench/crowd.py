"""Many WebSocket clients in one process, on raw sockets: as cheap as Python can have them."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Sequence

PATH = "/receive-message/client/{user}{number}{query}"
CENTRIFUGO_PATH = "/connection/websocket"
CENTRIFUGO_CHANNEL = "global"
_AT_ONCE = 50  # concurrent handshakes

Take = Callable[["Client", bytes], None]
Channels = Callable[[int], Sequence[str]]


class Client:
    """One socket, and which messages of a round it has received.

    Attributes:
        number: in the crowd, from 0.
        next: how many messages came, as long as all came in order.
        seen: the messages that came, once one was out of order.
        doubles: messages that came again.
        disordered: messages that came after a later one.
        fed: whether it has received a first message.
    """

    __slots__ = ("buffer", "disordered", "doubles", "fed", "next", "number", "seen", "socket")

    def __init__(self, number: int, connection: socket.socket, buffer: bytes) -> None:
        self.number = number
        self.socket = connection
        self.buffer = buffer
        self.fed = False
        self.begin_round()

    def begin_round(self) -> None:
        """Forget what came."""
        self.next, self.doubles, self.disordered = 0, 0, 0
        self.seen: set[int] | None = None

    def take(self, numbers: list[bytes], expected: bytes) -> None:
        """Note the messages that came.

        Args:
            numbers: of eight digits each, in the order in which they came.
            expected: all numbers of the round, joined.
        """
        if self.seen is None:
            if b"".join(numbers) == expected[self.next * 8 : (self.next + len(numbers)) * 8]:
                self.next += len(numbers)
                return
            self.seen = set(range(self.next))
        top = max(self.seen, default=-1)
        for number in map(int, numbers):
            if number in self.seen:
                self.doubles += 1
            else:
                self.disordered += number < top
                self.seen.add(number)
            top = max(top, number)

    @property
    def had(self) -> int:
        """How many different messages came."""
        return self.next if self.seen is None else len(self.seen)


class Crowd:
    """All clients.

    Args:
        centrifugo: whether they speak Centrifugo's protocol: subscribe to channels, and answer its pings.
        first: the number of the first client, if there are others in other processes.
        user: the prefix of the user names, before the number.
        query: the query string of their URLs, with its question mark.
        tls: whether they speak TLS, and accept any certificate.
        channels: returns the Centrifugo channels of the client with this number.

    Attributes:
        clients: those that were connected, including those that are gone by now.
        cut: how many connections the server has ended.
        frames: how many data frames came.
        pings: how many pings came and were answered.
        reasons: close code and reason -> how many such close frames came.
    """

    def __init__(
        self,
        *,
        centrifugo: bool = False,
        first: int = 0,
        user: str = "u",
        query: str = "",
        tls: bool = False,
        channels: Channels = lambda number: [CENTRIFUGO_CHANNEL],
    ) -> None:
        self._centrifugo = centrifugo
        self._first = first
        self._user = user
        self._query = query
        self._tls = _any_certificate() if tls else None
        self._channels = channels
        self.clients: list[Client] = []
        self.cut = 0
        self.frames = 0
        self.pings = 0
        self.reasons: dict[str, int] = {}
        self._open: dict[int, Client] = {}
        self._epoll = select.epoll()

    @property
    def open(self) -> int:
        """How many are connected."""
        return len(self._open)

    def connect(self, host: str, port: int, count: int, *, seconds: float = 90, receive_buffer: int | None = None) -> list[Client]:
        """Connect `count` more clients, each as its own user, and return them.

        Args:
            host: of the server.
            port: of the server.
            count: how many.
            seconds: the time limit for each answer.
            receive_buffer: SO_RCVBUF in bytes, for one that will not read.
        """
        first, joined = self._first + len(self.clients), []
        for low in range(first, first + count, _AT_ONCE):
            numbers = range(low, min(low + _AT_ONCE, first + count))
            paths = [CENTRIFUGO_PATH if self._centrifugo else self._path(number) for number in numbers]
            asked = [
                (number, _ask(host, port, path, seconds, receive_buffer, self._tls)) for number, path in zip(numbers, paths, strict=True)
            ]
            for number, connection in asked:
                rest = _accepted(connection)
                joined.append(
                    Client(number, connection, _subscribed(connection, rest, self._channels(number)) if self._centrifugo else rest)
                )
        for client in joined:
            client.socket.setblocking(False)  # noqa: FBT003 - it takes no keyword
            self.listen(client)
        self.clients += joined
        return joined

    def listen(self, client: Client) -> None:
        """Read what comes for this client."""
        self._open[client.socket.fileno()] = client
        self._epoll.register(client.socket.fileno(), select.EPOLLIN)

    def ignore(self, client: Client) -> None:
        """Read nothing more for this client; its connection stays."""
        del self._open[client.socket.fileno()]
        self._epoll.unregister(client.socket.fileno())

    def pump(self, seconds: float, take: Take) -> None:
        """Wait at most `seconds` for data, and hand over what comes.

        Args:
            seconds: how long.
            take: called with a client and the data frames that it got, concatenated.
        """
        for descriptor, _ in self._epoll.poll(seconds):
            client = self._open.get(descriptor)
            if client is None:
                continue
            try:
                data = client.socket.recv(1 << 18)
                if isinstance(client.socket, ssl.SSLSocket):  # one TLS record per read; epoll does not see decrypted data
                    while client.socket.pending():
                        data += client.socket.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except OSError:
                data = b""
            if data:
                take(client, self._frames(client, data))
            else:
                self.cut += 1
                self.ignore(client)

    def pump_for(self, seconds: float, take: Take = lambda client, data: None) -> None:
        """Hand over what comes within `seconds`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.pump(min(left, 0.1), take)

    def close(self) -> None:
        """Leave, all at once."""
        for client in self.clients:
            client.socket.close()
        self._epoll.close()

    def _path(self, number: int) -> str:
        return PATH.format(user=self._user, number=number, query=self._query)

    def _frames(self, client: Client, data: bytes) -> bytes:
        """Return the whole data frames among what the client has; answers pings."""
        buffer = client.buffer + data if client.buffer else data
        position, out = 0, []
        size = len(buffer)
        # The frames of a round have the same length: compare their headers with strided slices.
        if not self._centrifugo and size >= 4 and buffer[0] == 0x81 and buffer[1] < 127:
            header = 2 if buffer[1] < 126 else 4
            stride = header + (buffer[1] if header == 2 else buffer[2] << 8 | buffer[3])
            end = size // stride * stride
            if end and all(buffer[i:end:stride].count(buffer[i]) == end // stride for i in range(header)):
                self.frames += end // stride
                position = end
                out.append(buffer[:end])
        while size - position >= 2:
            opcode, length, header = buffer[position] & 15, buffer[position + 1], 2
            if length == 126:
                if size - position < (header := 4):
                    break
                length = buffer[position + 2] << 8 | buffer[position + 3]
            elif length == 127:
                if size - position < (header := 10):
                    break
                length = int.from_bytes(buffer[position + 2 : position + 10], "big")
            if size - position < header + length:
                break
            payload = buffer[position + header : position + header + length]
            position += header + length
            if opcode == 9:
                self.pings += 1
                with contextlib.suppress(OSError):  # then it is gone, and the next read says so
                    client.socket.send(_frame(10, payload))
            elif opcode == 8:
                reason = f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode(errors='replace')}"
                self.reasons[reason] = self.reasons.get(reason, 0) + 1
            else:
                self.frames += 1
                if self._centrifugo and (payload[:2] == b"{}" or b"\n{}" in payload):  # a ping, maybe amid messages
                    self.pings += 1
                    with contextlib.suppress(OSError):
                        client.socket.send(_frame(1, b"{}"))
                out.append(payload)
        client.buffer = buffer[position:]
        return b"\n".join(out)


def totals(clients: Iterable[Client], messages: int) -> dict[str, int]:
    """Return how many of a round's messages are missing, came twice, and came out of order."""
    clients = list(clients)
    return {
        "missing": sum(messages - client.had for client in clients),
        "doubles": sum(client.doubles for client in clients),
        "disordered": sum(client.disordered for client in clients),
    }


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _ask(host: str, port: int, path: str, seconds: float, receive_buffer: int | None, tls: ssl.SSLContext | None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(seconds)
    connection.connect((host, port))
    if tls is not None:
        connection = tls.wrap_socket(connection)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    connection.sendall(request.encode())
    return connection


def _accepted(connection: socket.socket) -> bytes:
    """Wait for the answer to the handshake; return the bytes after it."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(65536)
        if not data:
            raise RuntimeError(f"the handshake was not answered; only {answer!r} came")
        answer += data
    head, rest = answer.split(b"\r\n\r\n", 1)
    if b" 101 " not in head.split(b"\r\n")[0] + b" ":
        raise RuntimeError(f"the handshake was refused: {head!r} {rest!r}")
    return rest


def _subscribed(connection: socket.socket, rest: bytes, channels: Sequence[str]) -> bytes:
    """Subscribe by Centrifugo's protocol; return the bytes after its answers."""
    commands: list[dict[str, object]] = [{"id": 1, "connect": {}}]
    commands += [{"id": number, "subscribe": {"channel": channel}} for number, channel in enumerate(channels, 2)]
    connection.sendall(_frame(1, "\n".join(map(json.dumps, commands)).encode()))
    while len(re.findall(rb'"id":\d+', rest)) < len(commands) or not rest.endswith(b"}"):
        rest += connection.recv(65536)
    if b'"error"' in rest:
        raise RuntimeError(f"a subscription was refused: {rest!r}")
    return b""


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame of less than 64 KiB, masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([0x80 | opcode]) + length + struct.pack("!I", 0) + payload
