"""Why a token is refused: for the log and the metrics, never for the client."""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """The classes of reasons; the label of a counter."""

    SHAPE = "shape"  # too large, not three segments, no JSON, a name twice
    HEADER = "header"  # a header parameter that is not taken
    ALGORITHM = "algorithm"  # not one that the issuer may use
    ISSUER = "issuer"  # nobody whom the settings name, or it may not speak for this user
    KEY = "key"  # no key of the issuer fits
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    TIME = "time"  # expired, from the future, or valid for too long
    CLAIMS = "claims"  # the user, or a right, is not well-formed


class TokenRefused(Exception):
    """A token that nobody may use.

    Attributes:
        reason: its class.
        issuer: the name, in the settings, of the issuer that the token claims to be of; None where there is none.
        kid: which key the token claims to be signed with; None where it does not say so.
    """

    def __init__(self, reason: Reason, detail: str, *, issuer: str | None = None, kid: str | None = None) -> None:
        """Take `detail`, one sentence without any byte of the token."""
        super().__init__(detail)
        self.reason = reason
        self.issuer = issuer
        self.kid = kid


class KeysUnknown(Exception):
    """The issuer's keys have not been read yet: come again."""
