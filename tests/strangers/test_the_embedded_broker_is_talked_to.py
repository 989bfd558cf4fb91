"""Nonsense sent to the embedded broker's port is logged at a limited rate, and nothing is written to stderr directly."""

from __future__ import annotations

import logging
import socket
import struct
from contextlib import suppress

import pytest
import trio

from kafka_chat.kafka.embedded_broker import open_embedded_broker
from tests.support.calls import until
from tests.support.deadlines import HANG_SECONDS

NONSENSE = {
    "a negative size": struct.pack(">i", -5) + b"x" * 20,
    "a request that there is not": struct.pack(">ihhih", 10, 999, 0, 1, -1),
    "a size of a gibibyte": struct.pack(">ihhih", 1 << 30, 0, 1, 1, -1),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nothing_is_written_past_the_log(what: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    async with open_embedded_broker() as address:
        host, _, port = address.rpartition(":")
        for _ in range(50):
            with socket.create_connection((host, int(port)), HANG_SECONDS) as client:
                client.sendall(NONSENSE[what])
                with suppress(ConnectionResetError):  # as it closes the connection
                    await trio.to_thread.run_sync(client.recv, 1)
        await until(lambda: "mock" in caplog.text)
        assert 1 <= sum("mock" in line for line in caplog.text.splitlines()) < 10
    logged = [record for record in caplog.records if "mock" in record.getMessage()]
    assert all(record.name == "kafka_chat.kafka" and record.levelno <= logging.WARNING for record in logged)
    assert "mock" not in capfd.readouterr().err
