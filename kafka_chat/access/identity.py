"""The identity of a client, and what it may do: the one place that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rights import NOTHING, Action, Rights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .patterns import UserPattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The identity of a client.

    Attributes:
        user: the token's user, in NFC; None without a token.
        rights: the combined rights of the token, its roles and the settings.
        act_as: the other users that the token may name, in a path or as a sender.
        unlimited: whether access control is off (no `auth.issuers`), so that every client may do everything.
        ends_at: when its streams end, a Unix time in seconds; None: never.
        issuer: the name, in the settings, of the token's issuer; None without a token.
        issued_at: `iat` of the token.
        token_id: `jti` of the token.
    """

    user: str | None
    rights: Rights = NOTHING
    act_as: Sequence[UserPattern] = ()
    unlimited: bool = False
    ends_at: float | None = None
    issuer: str | None = None
    issued_at: float | None = None
    token_id: str | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether access control is on and there is no token; then the name in the path has no meaning."""
        return self.user is None and not self.unlimited

    def may(self, action: Action, chat: str) -> bool:
        """Return whether it may do this with a chat."""
        return self.unlimited or self.rights.allow(action, chat, self.user)

    def may_speak_for(self, user: str) -> bool:
        """Return whether it may name `user`, in NFC, in a path or as a sender."""
        return self.unlimited or (self.user is not None and (user == self.user or any(one.covers(user) for one in self.act_as)))


EVERYBODY = Identity(user=None, unlimited=True)
PENDING = Identity(user=None)  # access is on, and the token comes in the first frame: nothing may be done before
