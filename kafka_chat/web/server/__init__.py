"""hypercorn, adapted: the one folder to read when hypercorn, h11, wsproto, quart-trio or trio is another version.

What we touch of them, what for, and which test below tests/ fails where it is no longer so. A name in lower case or with an underscore
behind a class is one of its attributes; private names are among them. tests/edges/test_hypercorn_names.py compares this list with the
code, and looks each name up in what is installed. Of ASGI's types (`hypercorn.typing`) and of trio's public names only those are
listed that are more than what their documentation says.

hypercorn.trio.tcp_server
    TCPServer: one connection; we override run, protocol_send, _read_data, _close [edges/test_hypercorn_shapes]
    TCPServer: run makes protocol and _task_group, and takes any OSError for the client's end [edges/test_hypercorn_killers]
    TCPServer: send_lock, idle_task: not needed any more; 0.4 KiB and a task for each connection [edges/test_hypercorn_shapes]
    TCPServer: context.terminated: the shutdown has begun; nobody else is told of it [edges/test_hypercorn_life]
    ProtocolWrapper: would go over to HTTP/2 where a client asks; looked up as TCPServer.run begins [edges/test_hypercorn_shapes]
hypercorn.trio.run
    TCPServer: looked up for each connection, so that one of ours can be put there [edges/test_hypercorn_shapes]
hypercorn.trio
    serve: runs the app; its task_status tells the addresses, LifespanFailureError leaves it [edges/test_hypercorn_life]
hypercorn.trio.worker_context
    EventWrapper: what H11Protocol.can_read has to be; nobody waits for ours [edges/test_hypercorn_shapes]
    TrioSingleTask, WorkerContext: types [edges/test_hypercorn_shapes]
hypercorn.protocol
    ProtocolWrapper: the type of TCPServer.protocol, where ChatH11Protocol stands [edges/test_hypercorn_shapes]
hypercorn.protocol.h11
    H11Protocol: reads requests; we override what decides when the next one is read, and how each is refused [strangers/test_door]
    H11Protocol: our _handle_events and _create_stream are theirs, changed [edges/test_hypercorn_shapes]
    H11Protocol: stream is None between requests; _close_stream tells the app of the end [edges/test_hypercorn_cut_answers]
    H11Protocol: stream_send and _send_h11_event: what is said of a request [edges/test_hypercorn_cut_answers]
    H11WSConnection: stands for h11's connection behind a handshake; its h11_connection is dropped then [edges/test_hypercorn_life]
    STREAM_ID: of the only stream that HTTP/1.1 has [strangers/test_door]
    WSStream: looked up for each handshake [edges/test_hypercorn_shapes]
hypercorn.protocol.http_stream
    HTTPStream: answers one request; an app that ends without an answer has it say 500 [edges/test_hypercorn_cut_answers]
    ASGIHTTPState: set behind the write of a head, so a cut there would begin a second answer [edges/test_hypercorn_cut_answers]
hypercorn.protocol.ws_stream
    WSStream: one WebSocket; we override handle, _accept, _handle_events, _send_wsproto_event [edges/test_hypercorn_shapes]
    WSStream: app_put waits while ten messages wait for the app; app_send ignores what comes behind the end [edges/test_hypercorn_sinks]
    WebsocketBuffer: a message as it comes in; counts characters, and stores what is over the limit [edges/test_hypercorn_rules]
    FrameTooLargeError: what WebsocketBuffer.extend raises [edges/test_hypercorn_rules]
    ASGIWebsocketState: CONNECTED from the accept on [edges/test_hypercorn_sockets]
hypercorn.events
    Event, RawData, Closed, Updated: what a protocol says to its connection and hears of it [edges/test_hypercorn_shapes]
hypercorn.protocol.events
    Event, Request, Response, Body, EndBody, Data, StreamClosed: what a stream says and hears [edges/test_hypercorn_shapes]
hypercorn.config
    Config: how `serve` is set up; create_ssl_context is ours, to offer HTTP/1.1 alone [strangers/test_no_http2]
hypercorn.logging
    AccessLogAtoms: writes a decoded path, so that a client would write lines of the log [strangers/test_an_access_log]
hypercorn.utils
    LifespanFailureError: the one error of the lifespan that ends the server [edges/test_hypercorn_shapes]
hypercorn.typing
    AppWrapper, ConnectionState, Framework, H11SendableEvent, LifespanState, TaskGroup: types [edges/test_hypercorn_shapes]
    ResponseSummary, WWWScope, WebsocketAcceptEvent: types [edges/test_hypercorn_shapes]

h11
    Connection: states and events of one connection; next_event raises at what is malformed [strangers/test_door]
    Connection: trailing_data: what waits behind a request that is being answered [strangers/test_half_close]
    Connection: _receive_buffer: ours, so that the size of a head does not depend on packets [strangers/test_door]
    Connection: _request_method: HEAD, whose answer has no body, which h11 does not leave out by itself [strangers/test_door]
    Request, Response, InformationalResponse, Data, EndOfMessage, PAUSED: what is read and sent [strangers/test_door]
    SERVER, IDLE, SEND_BODY, SEND_RESPONSE, DONE, MUST_CLOSE, CLOSED: states of either side [strangers/test_half_close]
    LocalProtocolError, RemoteProtocolError: raised at events in a wrong state, and at malformed requests [strangers/test_door]
h11._receivebuffer
    ReceiveBuffer: _data, _multiple_lines_search and how lines are looked for, up to blank_line_regex [strangers/test_door]
    blank_line_regex: what ends a head [strangers/test_door]
h11._state
    MIGHT_SWITCH_PROTOCOL: the client's state behind a handshake, or CONNECT [strangers/test_half_close]

wsproto.connection
    ConnectionState: OPEN while a broken frame is told by CloseConnection, else another one [edges/test_hypercorn_shapes]
wsproto.events
    Event, Message, Ping, CloseConnection: what comes; to answer with event.response() [edges/test_hypercorn_rules]
wsproto.connection.Connection
    _events: an empty deque of 760 bytes, which we do without [edges/test_hypercorn_shapes]
    _proto: its parser is in a cycle with its own generator _parse_more, which is broken at the end [edges/test_hypercorn_life]
wsproto.frame_protocol
    CloseReason: close codes by name [edges/test_hypercorn_rules]

quart_trio
    QuartTrio: the application; asgi_http_class, asgi_websocket_class and asgi_lifespan_class are ours [edges/test_hypercorn_life]
quart_trio.asgi
    TrioASGIHTTPConnection: one request; we override __call__ and _send_response, to go on as a stream [edges/test_hypercorn_events]
    TrioASGIWebsocketConnection: one WebSocket; without its channel of ten messages [edges/test_hypercorn_life]
    TrioASGILifespan: replaced as a whole, so that a service that fails ends the server [edges/test_hypercorn_life]
quart_trio.wrappers
    TrioRequest: a request, whose body may be as large as its route takes [strangers/test_large_cursors]

trio.socket
    SocketType: its close frees who waits for it; _sock is the socket under it, which writes without a step [edges/test_hypercorn_shapes]
trio
    SSLStream: send_all encrypts into transport_stream, which is ours and takes all at once [edges/test_hypercorn_sockets]
    SocketStream: made by hypercorn's listener; its socket is all that we use [edges/test_hypercorn_shapes]
trio.lowlevel
    wait_task_rescheduled, reschedule: by which `ReadySockets` gives turns [core/test_ready_sockets]
"""
