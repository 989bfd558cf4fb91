"""Why a token is refused: for the log and the metrics, never for the client."""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """The classes of reasons; the label of a counter."""

    SHAPE = "shape"  # too large, not three segments, not JSON, a name twice
    HEADER = "header"  # a header parameter that is not accepted
    ALGORITHM = "algorithm"  # not one of the issuer's
    ISSUER = "issuer"  # not in the settings, or may not name this user
    KEY = "key"  # none of the issuer's keys fits
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    TIME = "time"  # expired, from the future, or valid for too long
    CLAIMS = "claims"  # the user, or a right, is not well-formed


class TokenRefused(Exception):
    """A token is refused.

    Attributes:
        reason: its class.
        issuer: the name, in the settings, of the issuer that the token claims; None if there is none.
        kid: the key id that the token claims; None if it has none.
    """

    def __init__(self, reason: Reason, detail: str, *, issuer: str | None = None, kid: str | None = None) -> None:
        """Take `detail`, one sentence without any byte of the token."""
        super().__init__(detail)
        self.reason = reason
        self.issuer = issuer
        self.kid = kid


class KeysUnknown(Exception):
    """The issuer's keys have not been read yet; try again later."""
