"""The strict client accepts correct bytes of a server, and names wrong ones."""

import struct

import pytest
import trio

from tests.support.raw_client import BrokenStream, Frame, Opcode, RawClient, client_frame


async def client_that_reads(stream: bytes) -> tuple[RawClient, list[Frame]]:
    """Return a client and the frames that it has read from a stream that ends."""
    server, ours = trio.socket.socketpair()
    client = RawClient(trio.SocketStream(ours))
    try:
        await trio.SocketStream(server).send_all(stream)
        server.close()
        return client, await client.read_to_end()
    finally:
        server.close()
        await client.close()


def server_frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    return client_frame(opcode, payload, final=final, masked=False)


async def test_frames_of_every_length_and_a_fragmented_text_around_a_ping_pass():
    sizes = [0, 125, 126, 65535, 65536]
    euro = "€".encode()
    stream = b"".join(server_frame(Opcode.TEXT, b"x" * size) for size in sizes)
    stream += server_frame(Opcode.TEXT, euro[:1], final=False) + server_frame(Opcode.PING, b"p")
    stream += server_frame(Opcode.CONTINUATION, euro[1:]) + server_frame(Opcode.CLOSE, struct.pack("!H", 1012) + b"bye")
    _, frames = await client_that_reads(stream)
    assert [len(frame.payload) for frame in frames] == [*sizes, 1, 1, 2, 5]


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (client_frame(Opcode.TEXT, b"x"), "masked"),
        (client_frame(Opcode.TEXT, b"x", masked=False, reserved=4), "reserved bit"),
        (server_frame(3), "unknown opcode"),
        (b"\x81\x7e\x00\x05hello", "more bytes than it needs"),
        (b"\x81\x7f" + struct.pack("!Q", 70), "more bytes than it needs"),
        (server_frame(Opcode.TEXT, b"\xff"), "not UTF-8"),
        (server_frame(Opcode.TEXT, "€".encode()[:2]), "not UTF-8"),
        (server_frame(Opcode.CONTINUATION, b"x"), "continuation"),
        (server_frame(Opcode.TEXT, b"x", final=False) + server_frame(Opcode.TEXT, b"y"), "beginning before the end"),
        (server_frame(Opcode.PING, b"x", final=False), "fragmented"),
        (server_frame(Opcode.PING, b"x" * 126), "too long"),
        (server_frame(Opcode.CLOSE, b"\x03"), "half a code"),
        (server_frame(Opcode.CLOSE, struct.pack("!H", 1006)), "1006"),
        (server_frame(Opcode.CLOSE, struct.pack("!H", 1000) + b"\xff"), "reason that is not UTF-8"),
        (server_frame(Opcode.CLOSE) + server_frame(Opcode.TEXT, b"late"), "after the close"),
        (server_frame(Opcode.TEXT, b"hello")[:4], "inside a frame"),
        # a pong that was written into the middle of a message: its bytes become text, and the text becomes frames
        (server_frame(Opcode.TEXT, b'{"text":"0123"}')[:9] + server_frame(Opcode.PONG, b"\xfe") + b'"0123"}', "not UTF-8"),
    ],
)
async def test_what_no_server_may_send_is_named(stream, complaint):
    with pytest.raises(BrokenStream, match=complaint):
        await client_that_reads(stream)
