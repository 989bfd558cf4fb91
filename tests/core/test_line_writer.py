"""Lines reach a descriptor in order, or are dropped and counted; writing them never blocks."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kafka_chat.process.line_writer import HELD_BYTES, LineWriter

SECONDS = 30.0  # for what needs milliseconds


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe that takes one page."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield read, write
    finally:
        os.close(read)
        os.close(write)


def writer_to(descriptor: int) -> LineWriter:
    return LineWriter(descriptor, name="lines", note=lambda count: f"dropped {count}\n".encode())


class Reader:
    """Reads a pipe to its end in a thread."""

    def __init__(self, descriptor: int) -> None:
        self.data = b""
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self.data.endswith(b"end\n"):
            self.data += os.read(self._descriptor, 1 << 16)

    def lines(self) -> list[str]:
        self._thread.join(SECONDS)
        return self.data.decode().splitlines()[:-1]


def test_lines_keep_their_order_and_the_thread_ends_with_its_owner():
    threads = threading.active_count()
    with pipe() as (read, write):
        writer, reader = writer_to(write), Reader(read)
        for number in range(5_000):
            writer.put(f"{number}\n".encode())
        writer.put(b"end\n")
        assert writer.close(SECONDS)
        assert reader.lines() == [str(number) for number in range(5_000)]
    assert writer.dropped() == {"stalled": 0, "failed": 0}
    assert threading.active_count() == threads


@pytest.mark.promise("p-log-unread")
def test_what_nobody_takes_is_held_up_to_a_bound_and_then_dropped_and_counted_and_said_once():
    line = b"x" * 999 + b"\n"
    with pipe() as (read, write):
        writer = writer_to(write)
        for _ in range(3_000):
            writer.put(line)
        missing = writer.dropped()["stalled"]
        assert 3_000 - missing == pytest.approx(HELD_BYTES / len(line), abs=70)  # and what the pipe and one write have
        reader = Reader(read)
        assert writer.flush(SECONDS)
        writer.put(b"again\n")
        writer.put(b"end\n")
        assert writer.close(SECONDS)
        lines = reader.lines()
    assert lines[-2:] == [f"dropped {missing}", "again"]
    assert len(lines) == 3_000 - missing + 2
    assert writer.dropped() == {"stalled": missing, "failed": 0}


def test_while_a_slow_reader_takes_little_nothing_is_written_in_between_what_was_dropped():
    line = b"x" * 999 + b"\n"
    with pipe() as (read, write):
        writer = writer_to(write)
        for _ in range(2_000):
            writer.put(line)
        for _ in range(100):  # a tenth of what is held
            os.read(read, 1_000)
            writer.put(line)
        missing = writer.dropped()["stalled"]
        reader = Reader(read)
        assert writer.flush(SECONDS)
        writer.put(b"end\n")
        assert writer.close(SECONDS)
        assert reader.lines().count(f"dropped {missing}") == 1


def test_a_line_that_is_larger_than_all_that_is_held_is_dropped_alone():
    with pipe() as (read, write):
        writer, reader = writer_to(write), Reader(read)
        writer.put(b"one\n")
        assert writer.flush(SECONDS)
        writer.put(b"x" * HELD_BYTES + b"\n")
        assert writer.flush(SECONDS)
        writer.put(b"two\n")
        writer.put(b"end\n")
        assert writer.close(SECONDS)
        assert reader.lines() == ["one", "dropped 1", "two"]


@pytest.mark.promise("p-log-fails")
def test_an_error_costs_the_lines_of_that_write_and_is_said_once_it_is_over(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file, open("/dev/full", "wb") as full:
        descriptor = os.dup(full.fileno())
        writer = writer_to(descriptor)
        for _ in range(7):
            writer.put(b"lost\n")
            assert writer.flush(SECONDS)
        assert writer.dropped() == {"stalled": 0, "failed": 7}
        os.dup2(file.fileno(), descriptor)  # there is room again
        writer.put(b"kept\n")
        assert writer.close(SECONDS)
        os.close(descriptor)
    assert path.read_bytes() == b"dropped 7\nkept\n"


def test_a_reader_that_has_gone_ends_nothing():
    read, write = os.pipe()
    os.close(read)
    writer = writer_to(write)
    writer.put(b"one\ntwo\n")
    assert writer.close(SECONDS)
    os.close(write)
    assert writer.dropped() == {"stalled": 0, "failed": 2}


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for():
    with pipe() as (read, write):
        os.set_blocking(write, False)
        writer, reader = writer_to(write), Reader(read)
        for number in range(2_000):
            writer.put(f"{number:0>100}\n".encode())
        writer.put(b"end\n")
        assert writer.close(SECONDS)
        assert len(reader.lines()) == 2_000


def test_a_write_that_nobody_takes_keeps_neither_flush_nor_close():
    with pipe() as (read, write):
        writer = writer_to(write)
        writer.put(b"x" * 100_000 + b"\n")
        assert not writer.flush(0.01)
        assert not writer.close(0.01)
        reader = Reader(read)
        writer.put(b"end\n")
        assert writer.close(SECONDS)
        assert reader.lines() == ["x" * 100_000]
