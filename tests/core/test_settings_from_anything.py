"""Settings are read from any file or pipe, with limits of size and time."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kafka_chat.errors import SettingsError
from kafka_chat.settings.file_contents import contents
from kafka_chat.settings.yaml_file import MOST_BYTES, read_config_file
from tests.support.deadlines import HANG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.05


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def pipe() -> Iterator[tuple[Path, int]]:
    """Return the path of a pipe, as of a process substitution, and its writing end."""
    reading, writing = os.pipe()
    yield Path(f"/dev/fd/{reading}"), writing
    os.close(reading)
    with suppress(OSError):  # a test has closed it
        os.close(writing)


@pytest.mark.promise("p-config-pipe")
def test_what_has_no_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    zero = Path("/dev/zero")
    with pytest.raises(SettingsError, match="/dev/zero has more than 1,048,576 bytes"):
        read_config_file(zero)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(SettingsError, match="has more than"):
        read_config_file(large)
    large.write_bytes(b"#" * MOST_BYTES)
    assert read_config_file(large) == []


@pytest.mark.promise("p-config-pipe")
def test_a_fifo_that_nobody_writes_to_is_not_waited_for_without_end(fifo: Path) -> None:
    with pytest.raises(SettingsError, match="has not ended within"):
        contents(fifo, 100, seconds=SOON)


@pytest.mark.promise("p-config-pipe")
def test_a_pipe_that_its_writer_does_not_close_is_not_waited_for_without_end(pipe: tuple[Path, int]) -> None:
    path, writing = pipe
    os.write(writing, b"server:")
    with pytest.raises(SettingsError, match="has not ended within"):
        contents(path, 100, seconds=SOON)


@pytest.mark.promise("p-config-pipe")
def test_a_pipe_is_read_to_its_end_however_it_comes(pipe: tuple[Path, int]) -> None:
    path, writing = pipe
    text = b"server:\n  port: 8002\n" * 10_000  # more than a pipe holds

    def write() -> None:
        for first in range(0, len(text), 30_000):
            os.write(writing, text[first : first + 30_000])
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    assert contents(path, MOST_BYTES, seconds=HANG_SECONDS) == text
    writer.join()


@pytest.mark.promise("p-config-pipe")
def test_a_pipe_with_nothing_in_it_is_no_file_without_settings(pipe: tuple[Path, int]) -> None:
    path, writing = pipe
    os.close(writing)
    with pytest.raises(SettingsError, match="is a pipe with nothing in it"):
        contents(path, 100, seconds=HANG_SECONDS)


def test_the_null_device_is_a_file_without_settings() -> None:
    assert read_config_file(Path(os.devnull)) == []
