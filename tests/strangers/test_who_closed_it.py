"""A close by the server, for what the client sent, counts as the service's close, in the log and in the metric."""

from __future__ import annotations

import pytest

from tests.support.brokers import EmbeddedBroker
from tests.support.calls import metric, running
from tests.support.chats import Chats
from tests.support.raw_client import Opcode, client_frame, close_code, open_raw

INPUTS = {
    1002: client_frame(1, b"x", reserved=4),
    1007: client_frame(1, b"\xff"),
    1008: client_frame(9) * 1_001,
    1009: client_frame(1, b"x" * 65_537),
}
PATH = "/receive-message/client/ann"
MIB = 2**20


@pytest.mark.parametrize("code", INPUTS)
async def test_a_close_of_the_server_is_logged_as_of_the_service(
    code: int, embedded: EmbeddedBroker, chats: Chats, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    async with running(chats.settings_for(embedded)) as server:
        async with open_raw(server.url, PATH) as client:
            await client.send(INPUTS[code])
            frames = await client.read_to_end()
        assert close_code(frames[-1])[0] == code
    assert f"code={code} by=service" in caplog.text


async def test_a_close_for_want_of_memory_is_counted_as_1013_and_one_of_a_client_is_not(
    embedded: EmbeddedBroker, chats: Chats, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    # Clients together may owe 16 MiB at the least: the piece of one fits, that of the second does not.
    settings = chats.settings_for(embedded, memory__bytes=MIB, limits__client_message_bytes=12 * MIB)
    piece = client_frame(Opcode.TEXT, b"x" * (9 * MIB), final=False)
    async with running(settings) as server:
        async with open_raw(server.url, PATH) as client, open_raw(server.url, PATH) as second:
            await client.send(piece)
            await client.ping()
            await second.send(piece)
            frames = await second.read_to_end()
            assert close_code(frames[-1])[0] == 1013
            await client.send_frame(Opcode.CLOSE, (1013).to_bytes(2, "big"))
            await client.read_to_end()
        assert await metric(server.url, 'sessions_closed_total{code="1013"}') == 1
        assert await metric(server.url, 'sessions_closed_total{code="other"}') == 1
    assert "code=1013 by=service" in caplog.text
    assert "code=1013 by=client" in caplog.text
