"""A file that keeps a cursor from one run to the next."""

from __future__ import annotations

import contextlib
import os
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ..changes import Changes
from ..chat.resume_cursor import TEXT_LENGTH, parse
from ..errors import KafkaChatError, RequestError, SettingsError
from ..nursery import open_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

NOTE_SECONDS = 0.1  # writing the file takes 0.2 ms, printing a message a fifth of that
_BEGIN = "delete it to begin without a cursor, or name another file"


class CursorNotKept(KafkaChatError):
    """The file cannot be written; the message is a sentence."""


class CursorFile:
    """Keeps the last cursor; the file always contains a whole one, even after a power failure.

    Args:
        path: the path of the file; a symbolic link is followed.
        fsync: writes a descriptor's file to disk.

    Raises:
        SettingsError: the path cannot be resolved.
    """

    def __init__(self, path: Path, *, fsync: Callable[[int], None] = os.fsync) -> None:
        try:
            self._path = path.resolve()
        except (OSError, RuntimeError) as error:  # the working directory has been deleted, or symbolic links form a loop
            raise SettingsError(f"--cursor-file: {path} cannot be resolved: {error}") from error
        self._fsync = fsync
        self._kept: str | None = None

    def read(self) -> str | None:
        """Return the kept cursor; None if there is no file.

        Raises:
            SettingsError: it cannot be read, or contains something else.
        """
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):  # reading it may never end, and saving would replace it
                raise SettingsError(f"--cursor-file: {self._path} is not a file; name a file, or one that does not exist yet")
            with self._path.open(encoding="ascii") as file:
                text = file.read(TEXT_LENGTH + 2).strip()  # and a line end; anything longer is no cursor
            if not text:  # after a power failure, on a file system that keeps the name without the content
                raise SettingsError(f"--cursor-file: {self._path} is empty; {_BEGIN}")
            parse(text)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"--cursor-file: {self._path} cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, RequestError) as error:
            raise SettingsError(f"--cursor-file: {self._path} holds no cursor; {_BEGIN}") from error
        self._kept = text
        return text

    def keep(self, cursor: str | None) -> None:
        """Keep a cursor instead of the last one; None (not known yet) changes nothing.

        Raises:
            CursorNotKept: the file cannot be written, and is unchanged.
        """
        if cursor is None or cursor == self._kept:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with beside.open("w", encoding="ascii") as file:
                file.write(f"{cursor}\n")
                file.flush()
                self._fsync(file.fileno())  # otherwise a power failure may leave an empty file
            beside.replace(self._path)
            self._sync_folder()
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise CursorNotKept(
                f"{self._path} cannot be written: {error.strerror}; the last messages printed are not saved there"
            ) from error
        self._kept = cursor

    def _sync_folder(self) -> None:
        """Write the directory entry to disk, too; otherwise a power failure brings back the previous cursor, which is whole."""
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:  # a directory that is writable but not readable: then it may be the previous cursor
            return
        try:
            self._fsync(descriptor)
        finally:
            os.close(descriptor)


@asynccontextmanager
async def open_notes(file: CursorFile) -> AsyncIterator[Callable[[str | None], None]]:
    """Keep the last noted cursor: at most ten times a second, and at the end of the block in any case.

    Yields:
        A function that notes a cursor.

    Raises:
        CursorNotKept: the file cannot be written; the block is cancelled.
    """
    noted: str | None = None
    notes = Changes()
    failed = False

    def note(cursor: str | None) -> None:
        nonlocal noted
        noted = cursor
        notes.note()

    async def keep_noted() -> None:
        nonlocal failed
        kept = 0
        while True:
            await notes.wait_beyond(kept)
            kept = notes.version
            failed = True
            file.keep(noted)
            failed = False
            await trio.sleep(NOTE_SECONDS)

    async with open_tasks() as tasks:
        tasks.start_soon(keep_noted)
        try:
            yield note
        finally:
            if not failed:
                file.keep(noted)
