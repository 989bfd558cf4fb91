"""Checks the issuers' keys for `kafka-chat check`: reads them once, and lists every key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..access.keys import KeyRefused
from ..issuers.authority import algorithms_of
from ..issuers.fetch import FETCH_SECONDS, FetchFailed
from ..issuers.key_source import read_keys
from .finding import Finding, well, wrong

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..access.keys import KeySet, RefusedKey, VerifyingKey
    from ..settings.model import AuthSettings, IssuerSettings


async def check_keys(auth: AuthSettings) -> list[Finding]:
    """Read the keys of all issuers concurrently, in about 10 s at most."""
    found: dict[str, list[Finding]] = {}

    async def look(name: str, issuer: IssuerSettings) -> None:
        found[name] = await _keys_of(f"auth.issuers.{name}", issuer)

    async with trio.open_nursery() as nursery:
        for name, issuer in auth.issuers.items():
            nursery.start_soon(look, name, issuer)
    return [finding for name in auth.issuers for finding in found[name]]


async def _keys_of(key: str, issuer: IssuerSettings) -> list[Finding]:
    try:
        with trio.fail_after(FETCH_SECONDS + 1):  # a fetch ends by itself; a file on a network may hang
            keys = await read_keys(issuer)
    except (FetchFailed, KeyRefused) as error:
        return [wrong("keys", f"{key}: {error}")]
    except trio.TooSlowError:
        return [wrong("keys", f"{key}: the file could not be read within {FETCH_SECONDS:g} s")]
    return _listed(key, keys, algorithms_of(issuer))


def _listed(key: str, keys: KeySet, algorithms: Collection[str]) -> list[Finding]:
    findings = [_usable(key, one, algorithms) for one in keys.keys] + [_refused(key, one) for one in keys.refused]
    if not any(one.algorithms & set(algorithms) for one in keys.keys):
        findings.append(wrong("keys", f"{key} has no key that fits {key}.algorithms ({', '.join(algorithms)}): no token could be valid"))
    return findings


def _usable(key: str, one: VerifyingKey, algorithms: Collection[str]) -> Finding:
    named = f"{key} has the {one.kind} key {_kid(one.kid)}"
    fitting = [algorithm for algorithm in algorithms if algorithm in one.algorithms]
    if not fitting:
        return well("keys", f"{named}, which is of no use: it is for {', '.join(sorted(one.algorithms))}, which is not in {key}.algorithms")
    return well("keys", f"{named}, for {', '.join(fitting)}")


def _refused(key: str, one: RefusedKey) -> Finding:
    sentence = f"{key} has the {one.kind or 'unknown'} key {_kid(one.kid)}, which is left out: {one.why}"
    return wrong("keys", sentence) if one.for_signing else well("keys", sentence)


def _kid(kid: str | None) -> str:
    return "without a kid" if kid is None else f'"{kid}"'
