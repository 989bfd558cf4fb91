"""Keeps the keys of one issuer up to date: fetches a JWKS every ten minutes, reads a file every 30 seconds."""

from __future__ import annotations

import os
from functools import partial
from random import uniform
from typing import TYPE_CHECKING

import trio

from ..access.keys import KeyRefused, read_jwks, read_keys_file, read_secret
from ..changes import Changes
from .fetch import JWKS_BYTES, FetchFailed, fetch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..access.issuer import Issuer
    from ..access.keys import KeySet
    from ..settings.model import IssuerSettings
    from ..telemetry.metrics import Telemetry

FETCH_AGAIN_SECONDS = 600.0
READ_AGAIN_SECONDS = 30.0
WITHOUT_KEYS_SECONDS = 2.0  # until the next try, while there are no keys
FAILED_SECONDS = 60.0  # after a failed try, while the last good keys are used
UNKNOWN_SECONDS = 2.0  # how long a token with an unknown key waits for the newest keys
QUIET_SECONDS = 30.0  # after a fetch, during which unknown keys cause no further fetch
JITTER = 0.2  # so that processes that start together do not fetch together


class KeySource:
    """Sets the keys of one `Issuer`, as a whole.

    Args:
        issuer: the issuer.
        read: returns the keys; raises `FetchFailed` or `KeyRefused`.
        again_seconds: how often to read them.
        asked: whether to read them at once for an unknown key: for a JWKS, not for a file.
        telemetry: records failures.

    Attributes:
        problem: why there are no keys; None if there are.
    """

    def __init__(
        self, issuer: Issuer, read: Callable[[], Awaitable[KeySet]], *, again_seconds: float, asked: bool, telemetry: Telemetry
    ) -> None:
        self.problem: str | None = "they have not been read yet"
        self._issuer = issuer
        self._read = read
        self._again_seconds = again_seconds
        self._asked = asked
        self._telemetry = telemetry
        self._wanted = Changes()
        self._done = Changes()
        self._reading = False
        self._quiet_until = 0.0
        self._told: str | None = None

    async def run(self) -> None:
        """Read the keys periodically, until cancelled."""
        while True:
            wanted = self._wanted.version
            good = await self.read_once()
            pause = self._again_seconds if good else FAILED_SECONDS
            if self._issuer.keys is None:
                pause = WITHOUT_KEYS_SECONDS
            with trio.move_on_after(min(pause, self._again_seconds) * uniform(1 - JITTER, 1 + JITTER)):
                await self._wanted.wait_beyond(wanted)

    async def read_once(self) -> bool:
        """Read the keys; returns False if that failed, and the last good ones stay."""
        self._reading = True
        try:
            keys = await self._read()
            if not keys.keys:
                raise KeyRefused("there is no key that may be used")
        except (FetchFailed, KeyRefused) as error:
            self._fail(str(error))
            return False
        else:
            self.problem = None
            if self._told is not None or _changed(self._issuer.keys, keys):
                self._telemetry.auth_keys_read(issuer=self._issuer.name, keys=len(keys.keys), refused=len(keys.refused))
            self._told = None
            self._issuer.keys = keys
            return True
        finally:
            self._reading = False
            self._quiet_until = trio.current_time() + QUIET_SECONDS
            self._done.note()

    async def look_for_newer(self) -> None:
        """Wait for newer keys because a token's key is unknown; not for long, and not often."""
        if not self._asked or (not self._reading and trio.current_time() < self._quiet_until):
            return
        done = self._done.version
        if not self._reading:
            self._reading = True  # so that others wait for the same read
            self._wanted.note()
        with trio.move_on_after(UNKNOWN_SECONDS):
            await self._done.wait_beyond(done)

    def _fail(self, why: str) -> None:
        if self._issuer.keys is None:
            self.problem = why
        self._telemetry.auth_keys_failed(issuer=self._issuer.name, reason=why, told=why == self._told)
        self._told = why


def _changed(before: KeySet | None, now: KeySet) -> bool:
    return before is None or len(before.keys) != len(now.keys) or not all(key in before for key in now.keys)


def key_source(issuer: Issuer, settings: IssuerSettings, telemetry: Telemetry) -> KeySource:
    """Return the source for an issuer's settings."""
    fetched = settings.jwks_url is not None
    again_seconds = FETCH_AGAIN_SECONDS if fetched else READ_AGAIN_SECONDS
    return KeySource(issuer, partial(read_keys, settings), again_seconds=again_seconds, asked=fetched, telemetry=telemetry)


async def read_keys(settings: IssuerSettings) -> KeySet:
    """Fetch or read an issuer's keys, once.

    Raises:
        FetchFailed: they cannot be read.
        KeyRefused: the content is something else.
    """
    if settings.jwks_url is not None:
        return read_jwks(await fetch(settings.jwks_url, settings.ca_file))
    if settings.keys_file is not None:
        return await _from_file(settings.keys_file, read_keys_file)
    return await _from_file(settings.secret_file or "", read_secret)


async def _from_file(path: str, parse: Callable[[bytes], KeySet]) -> KeySet:
    """Return the keys of a file; the thread is abandoned on a cancel, since a mounted file may hang."""
    try:
        content = await trio.to_thread.run_sync(_content, path, abandon_on_cancel=True)
    except OSError as error:
        raise FetchFailed(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > JWKS_BYTES:
        raise FetchFailed(f"{path} has over {JWKS_BYTES} bytes")
    return parse(content)


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # does not block on a pipe without a writer
    with os.fdopen(descriptor, "rb") as file:
        return file.read(JWKS_BYTES + 1)
