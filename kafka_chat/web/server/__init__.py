"""hypercorn, adapted: the one folder to read when hypercorn, h11, wsproto, quart-trio or trio is upgraded.

The names of them that we use, what for, and which test below tests/ fails when it no longer holds. A name in lower case or with an
underscore after a class is one of its attributes, possibly private. tests/edges/test_hypercorn_names.py compares this list with the
code, and looks each name up in the installed packages. ASGI's types (`hypercorn.typing`) and trio's public names are listed only if
we rely on more than what their documentation says.

hypercorn.trio.tcp_server
    TCPServer: one connection; we override run, protocol_send, _read_data, _close [edges/test_hypercorn_shapes]
    TCPServer: run makes protocol and _task_group, and treats any OSError as the client's end [edges/test_hypercorn_killers]
    TCPServer: send_lock, idle_task: replaced, as unused; they cost 0.4 KiB and a task each [edges/test_hypercorn_shapes]
    TCPServer: context.terminated: the shutdown has begun; only connections see it [edges/test_hypercorn_life]
    ProtocolWrapper: replaced, since it switches to HTTP/2 on request; looked up in TCPServer.run [edges/test_hypercorn_shapes]
hypercorn.trio.run
    TCPServer: looked up for each connection, so ours can replace it [edges/test_hypercorn_shapes]
hypercorn.trio
    serve: runs the app; task_status gets the addresses; may raise LifespanFailureError [edges/test_hypercorn_life]
hypercorn.trio.worker_context
    EventWrapper: the type of H11Protocol.can_read; nothing waits for ours [edges/test_hypercorn_shapes]
    TrioSingleTask, WorkerContext: types [edges/test_hypercorn_shapes]
hypercorn.protocol
    ProtocolWrapper: the declared type of TCPServer.protocol; ours is ChatH11Protocol [edges/test_hypercorn_shapes]
hypercorn.protocol.h11
    H11Protocol: reads requests; we override when the next one is read, and how each is refused [strangers/test_door]
    H11Protocol: our _handle_events and _create_stream are modified copies [edges/test_hypercorn_shapes]
    H11Protocol: stream is None between requests; _close_stream sends the app the end [edges/test_hypercorn_cut_answers]
    H11Protocol: stream_send and _send_h11_event: send an answer [edges/test_hypercorn_cut_answers]
    H11WSConnection: replaces h11's connection after a handshake; we drop its h11_connection [edges/test_hypercorn_life]
    STREAM_ID: the id of HTTP/1.1's only stream [strangers/test_door]
    WSStream: looked up for each handshake [edges/test_hypercorn_shapes]
hypercorn.protocol.http_stream
    HTTPStream: answers one request; sends 500 if the app ends without an answer [edges/test_hypercorn_cut_answers]
    ASGIHTTPState: set after a head is written; a cancel before that starts a second answer [edges/test_hypercorn_cut_answers]
hypercorn.protocol.ws_stream
    WSStream: one WebSocket; we override handle, _accept, _handle_events, _send_wsproto_event [edges/test_hypercorn_shapes]
    WSStream: app_put waits while ten messages are queued; app_send ignores events after the end [edges/test_hypercorn_sinks]
    WebsocketBuffer: collects a message; counts characters, and stores even beyond the limit [edges/test_hypercorn_rules]
    FrameTooLargeError: what WebsocketBuffer.extend raises [edges/test_hypercorn_rules]
    ASGIWebsocketState: CONNECTED from the accept on [edges/test_hypercorn_sockets]
hypercorn.events
    Event, RawData, Closed, Updated: the events between a protocol and its connection [edges/test_hypercorn_shapes]
hypercorn.protocol.events
    Event, Request, Response, Body, EndBody, Data, StreamClosed: the events of a stream [edges/test_hypercorn_shapes]
hypercorn.config
    Config: configures `serve`; create_ssl_context is ours, to offer only HTTP/1.1 [strangers/test_no_http2]
hypercorn.logging
    AccessLogAtoms: writes the decoded path, with which a client can forge log lines [strangers/test_an_access_log]
hypercorn.utils
    LifespanFailureError: the only lifespan error that ends the server [edges/test_hypercorn_shapes]
hypercorn.typing
    AppWrapper, ConnectionState, Framework, H11SendableEvent, LifespanState, TaskGroup: types [edges/test_hypercorn_shapes]
    ResponseSummary, WWWScope, WebsocketAcceptEvent, WebsocketDisconnectEvent: types [edges/test_hypercorn_shapes]

h11
    Connection: states and events of one connection; next_event raises for malformed input [strangers/test_door]
    Connection: trailing_data: bytes after the request that is being answered [strangers/test_half_close]
    Connection: _receive_buffer: ours, so that the limit of a head does not depend on packets [strangers/test_door]
    Connection: _request_method: for HEAD we drop the body, which h11 does not [strangers/test_door]
    Request, Response, InformationalResponse, Data, EndOfMessage, PAUSED: events read and sent [strangers/test_door]
    SERVER, IDLE, SEND_BODY, SEND_RESPONSE, DONE, MUST_CLOSE, CLOSED: states of either side [strangers/test_half_close]
    LocalProtocolError, RemoteProtocolError: for events in a wrong state, for malformed requests [strangers/test_door]
h11._receivebuffer
    ReceiveBuffer: _data, _multiple_lines_search: the search for blank_line_regex [strangers/test_door]
    ReceiveBuffer: _extract, is_next_line_obviously_invalid_request_line: for empty lines before a request [strangers/test_door]
    blank_line_regex: matches the end of a head [strangers/test_door]
h11._state
    MIGHT_SWITCH_PROTOCOL: the client's state after a handshake or CONNECT [strangers/test_half_close]

wsproto.connection
    ConnectionState: OPEN if a CloseConnection event reports a broken frame [edges/test_hypercorn_shapes]
wsproto.events
    Event, Message, Ping, CloseConnection: incoming events; event.response() answers [edges/test_hypercorn_rules]
wsproto.connection.Connection
    _events: an empty deque of 760 bytes, which we remove [edges/test_hypercorn_shapes]
    _proto: its parser and its generator _parse_more are a cycle, which we break at the end [edges/test_hypercorn_life]
wsproto.frame_protocol
    CloseReason: close codes by name [edges/test_hypercorn_rules]

quart_trio
    QuartTrio: the application; asgi_http_class, asgi_websocket_class and asgi_lifespan_class are ours [edges/test_hypercorn_life]
quart_trio.asgi
    TrioASGIHTTPConnection: one request; we override __call__ and _send_response for event streams [edges/test_hypercorn_events]
    TrioASGIWebsocketConnection: one WebSocket; we drop its channel of ten messages [edges/test_hypercorn_life]
    TrioASGILifespan: replaced, so that a failed service ends the server [edges/test_hypercorn_life]
quart_trio.wrappers
    TrioRequest: a request; ours has a body limit per route [strangers/test_large_cursors]

trio.socket
    SocketType: its close wakes waiting tasks; _sock is the plain socket, to write synchronously [edges/test_hypercorn_shapes]
trio
    SSLStream: send_all encrypts into transport_stream, which is ours and never blocks [edges/test_hypercorn_sockets]
    SocketStream: made by hypercorn's listener; we use only its socket [edges/test_hypercorn_shapes]
trio.lowlevel
    wait_task_rescheduled, reschedule: how `ReadySockets` schedules connections [core/test_ready_sockets]
"""
