"""Who asks, and what they may do: the one place that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rights import NOTHING, Action, Rights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .patterns import UserPattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks.

    Attributes:
        user: whom the token names, in NFC; None: there is no token.
        rights: what the token, its roles and the settings allow, added up.
        act_as: the other users whom the token may name, in a path or as a sender.
        unlimited: access is off (no `auth.issuers`), and everybody may do everything.
        ends_at: until when its streams last, a Unix time in seconds; None: for ever.
        issuer: the name, in the settings, of the issuer of the token; None: there is no token.
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
        """Whether access is on and there is no token: the name in the path stands for nobody."""
        return self.user is None and not self.unlimited

    def may(self, action: Action, chat: str) -> bool:
        """Return whether it may do this with a chat."""
        return self.unlimited or self.rights.allow(action, chat, self.user)

    def may_speak_for(self, user: str) -> bool:
        """Return whether it may name `user`, in NFC, in a path or as a sender."""
        return self.unlimited or (self.user is not None and (user == self.user or any(one.covers(user) for one in self.act_as)))


EVERYBODY = Identity(user=None, unlimited=True)
PENDING = Identity(user=None)  # access is on, and the token comes in the first frame: nothing may be done before
