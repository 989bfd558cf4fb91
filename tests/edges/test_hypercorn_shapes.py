"""What we assume of hypercorn, wsproto and trio; a failure here says what to look at after an upgrade."""

from __future__ import annotations

import copy
import inspect
import socket
import subprocess
import sys

import hypercorn.protocol.h11
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import hypercorn.utils
import pytest
import trio
from hypercorn.config import Config
from hypercorn.protocol.events import Data, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio import lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection

from kafka_chat.web.server.connection import ChatTCPServer
from kafka_chat.web.server.http11 import ChatH11Protocol
from kafka_chat.web.server.install import install
from kafka_chat.web.server.policy import CONNECTION
from kafka_chat.web.server.websocket_stream import ChatWSStream
from tests.support.raw_client import Opcode, client_frame


async def never(*args: object) -> None:
    raise AssertionError("nothing calls this")


def made(state: dict[str, object]) -> tuple[ChatTCPServer, socket.socket]:
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    return ChatTCPServer(never, Config(), WorkerContext(None), state, stream), theirs


def test_hypercorn_looks_its_classes_up_when_it_serves():
    install()
    install()
    assert "TCPServer" in hypercorn.trio.run.worker_serve.__code__.co_names
    assert "WSStream" in hypercorn.protocol.h11.H11Protocol._create_stream.__code__.co_names
    assert "ProtocolWrapper" in hypercorn.trio.tcp_server.TCPServer.run.__code__.co_names
    assert "create_ssl_context" in hypercorn.trio.run.worker_serve.__code__.co_names
    assert hypercorn.trio.run.TCPServer is ChatTCPServer
    assert hypercorn.trio.tcp_server.ProtocolWrapper is ChatH11Protocol
    assert hypercorn.protocol.h11.WSStream is ChatWSStream


def test_a_connections_idle_task_is_begun_by_its_run_and_else_by_what_we_override():
    source = inspect.getsource(TCPServer)
    assert source.count("self.idle_task.") == 3
    assert "await self.idle_task.restart(self._task_group, self._idle_timeout)" in inspect.getsource(TCPServer.run)
    assert inspect.getsource(TCPServer.protocol_send).count("self.idle_task.") == 2


def test_the_command_loads_the_app_before_it_serves():
    source = inspect.getsource(hypercorn.trio.run.trio_worker)
    assert source.index("load_application") < source.index("worker_serve")


@pytest.mark.parametrize(
    ("ours", "theirs", "overridden"),
    [
        (ChatTCPServer, TCPServer, {"__init__", "run", "protocol_send", "_read_data", "_close"}),
        (
            ChatH11Protocol,
            H11Protocol,
            {"__init__", "handle", "stream_send", "_handle_events", "_create_stream", "_close_stream", "_send_h11_event"},
        ),
        (ChatWSStream, WSStream, {"handle", "_accept", "_handle_events", "_send_wsproto_event"}),
    ],
)
def test_we_override_what_is_there_and_nothing_else(ours: type, theirs: type, overridden: set[str]):
    found = {name for name in vars(ours) if name in vars(theirs) and callable(vars(theirs)[name])} - {"__deepcopy__"}
    assert found == overridden
    for name in overridden - {"__init__"}:
        assert list(inspect.signature(vars(ours)[name]).parameters) == list(inspect.signature(vars(theirs)[name]).parameters), name


async def test_connections_do_not_share_their_state():
    shared: dict[str, object] = {"app": "mine"}
    first, other = made(shared)
    second, another = made(shared)
    with other, another, first.stream.socket, second.stream.socket:
        assert shared == {"app": "mine"}
        assert first.state[CONNECTION] is first
        assert second.state[CONNECTION] is second
        assert copy.deepcopy(first.state)[CONNECTION] is first


async def test_our_names_do_not_hide_hypercorns():
    plain = TCPServer(never, Config(), WorkerContext(None), {}, None)
    ours = set(vars(ChatTCPServer)) - set(vars(TCPServer))
    assert not ours & set(vars(plain))


async def test_a_protocols_bytes_are_appended_before_anything_else_can_run():
    connection, peer = made({})
    with peer, connection.stream.socket:
        sending = connection.protocol_send(hypercorn.events.RawData(b"first"))
        sending.send(None)  # up to its first checkpoint
        sending.close()
        assert peer.recv(100) == b"first"


def test_from_a_state_change_of_wsproto_to_the_bytes_nothing_else_can_run():
    """What `_send_wsproto_event` does reaches `send` in one step, so the order on the wire is that of the states."""
    seen = []

    async def send(event: object) -> None:
        seen.append(event)

    stream = ChatWSStream(never, Config(), WorkerContext(None), None, ssl=False, client=None, server=None, send=send, stream_id=1)
    stream.connection = Connection(ConnectionType.SERVER)
    with pytest.raises(StopIteration):
        stream._send_wsproto_event(CloseConnection(code=1000)).send(None)
    assert seen == [Data(stream_id=1, data=b"\x88\x02\x03\xe8")]
    assert stream.connection.state is ConnectionState.LOCAL_CLOSING


@pytest.mark.parametrize(
    ("sent", "code"), [(client_frame(Opcode.TEXT, b"\xff"), 1007), (client_frame(5), 1002), (client_frame(Opcode.TEXT, masked=False), 1002)]
)
def test_wsproto_tells_a_broken_frame_by_a_close_event_in_an_open_state(sent: bytes, code: int):
    connection = Connection(ConnectionType.SERVER)
    connection.receive_data(sent)
    (event,) = connection.events()
    assert isinstance(event, CloseConnection)
    assert event.code == code
    assert connection.state is ConnectionState.OPEN


def test_wsproto_tells_a_real_close_in_another_state():
    connection = Connection(ConnectionType.SERVER)
    connection.receive_data(client_frame(Opcode.CLOSE, b"\x03\xe8"))
    (event,) = connection.events()
    assert isinstance(event, CloseConnection)
    assert connection.state is ConnectionState.REMOTE_CLOSING


def test_a_stream_knows_when_it_is_closed():
    assert StreamClosed(1) == StreamClosed(stream_id=1)


def test_the_servers_lifespan_lets_exactly_one_error_through():
    source = inspect.getsource(lifespan.Lifespan.handle_lifespan)
    assert "except (LifespanFailureError, trio.Cancelled):\n            raise" in source


def test_importing_the_server_changes_nothing_by_itself():
    code = "import kafka_chat.web.server.install, hypercorn.trio.run as r; print(r.TCPServer.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "hypercorn.trio.tcp_server\n"


async def test_closing_a_socket_frees_who_waits_for_it():
    connection, peer = made({})
    freed = []
    with peer:

        async def wait() -> None:
            try:
                await trio.lowlevel.wait_readable(connection.stream.socket)
            except trio.ClosedResourceError:
                freed.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            connection.stream.socket.close()
    assert freed == [True]


async def test_under_trios_socket_is_one_that_does_not_wait_and_knows_that_it_is_closed():
    connection, peer = made({})
    with peer:
        bare = connection.bare_socket
        assert type(bare) is socket.socket
        assert bare.gettimeout() == 0
        write = bare.send
        connection.stream.socket.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            write(b"x")


def test_wsproto_reads_frames_without_its_queue_of_events():
    connection = Connection(ConnectionType.SERVER)
    connection._events = ()
    connection.receive_data(client_frame(Opcode.TEXT, b"a") + client_frame(Opcode.CLOSE))
    assert [type(event).__name__ for event in connection.events()] == ["TextMessage", "CloseConnection"]
