"""A cursor file is whole at any time, even after a power failure; a damaged one is reported, with what to do."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kafka_chat.cli.cursor_file import CursorFile
from kafka_chat.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

ONE = "AQAAAAAA"


def test_what_is_kept_is_on_disk_before_it_takes_its_name_and_then_the_name_is(tmp_path: Path) -> None:
    done: list[str] = []

    def noted_fsync(descriptor: int) -> None:
        if (tmp_path / "cursor").exists() and "name" not in done:
            done.append("name")
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"file of {os.fstat(descriptor).st_size} bytes"
        done.append(kind)
        os.fsync(descriptor)

    file = CursorFile(tmp_path / "cursor", fsync=noted_fsync)
    file.keep(ONE)
    assert done == [f"file of {len(ONE) + 1} bytes", "name", "folder"]
    assert CursorFile(tmp_path / "cursor").read() == ONE
    assert [one.name for one in tmp_path.iterdir()] == ["cursor"]


@pytest.mark.parametrize(
    ("content", "about"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\0\0\0\0\0\0\0\0", "holds no cursor"),  # what some file systems leave after a power cut
        (b"\xff\xfe", "holds no cursor"),
        (b"AQAAAA", "holds no cursor"),
    ],
)
def test_a_file_that_holds_no_cursor_is_said_with_what_to_do(content: bytes, about: str, tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        CursorFile(path).read()
    assert str(caught.value) == f"--cursor-file: {path} {about}; delete it to begin without a cursor, or name another file"


def test_a_path_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(SettingsError, match=r"--cursor-file: .*a "):
        CursorFile(tmp_path / "a").read()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_neither_read_nor_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "cursor")
    with pytest.raises(SettingsError, match="is not a file"):
        CursorFile(tmp_path / "cursor").read()


def test_of_a_file_that_is_too_large_for_a_cursor_not_all_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # with nothing in it
    with pytest.raises(SettingsError, match="holds no cursor"):
        CursorFile(path).read()
