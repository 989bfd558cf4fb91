"""The one function that decides whether a client may do something."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ..errors import Overloaded, RequestError
from .rights import Action

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .identity import Identity

    Identify = Callable[[bytes | None, str], Awaitable[Identity]]
    """Returns the identity for a token, or for none; the text is the client's address, for the log.

    Raises `Unauthorized` and `KeysNotKnown`.
    """

_WORDS = {Action.READ: "read", Action.SEND: "send to", Action.CREATE: "create"}
CHALLENGE = 'Bearer error="invalid_token"'  # RFC 6750 section 3


class Need(enum.Enum):
    """What a route, a message of a dialogue, an op or a first frame needs; each declares it where it is registered."""

    PUBLIC = "public"  # nothing
    USER = "user"  # a token that may name the user, if the path names one
    READ = "read"  # to read chats; the only need that a client without a token can meet, if `auth.anonymous` covers the chats
    FOLLOW = "follow"  # to change a user's subscriptions: `USER`, and to read the chats
    SEND = "send"  # `USER`, and to send to the chats
    CREATE = "create"  # `USER`, and to create the chats


class Unauthorized(RequestError):
    """401: no token, or one that is not valid. The sentence is the same for all; the log has the reason."""

    status = 401

    def __init__(self) -> None:
        super().__init__("a valid token is needed", headers={"WWW-Authenticate": CHALLENGE})


class KeysNotKnown(Overloaded):
    """503: the keys that the token may be signed with have not been read yet. Never 401: the token may be good."""

    def __init__(self) -> None:
        super().__init__("the keys that tokens are signed with are not known yet; try again later")


class Forbidden(RequestError):
    """403: the token is valid, and does not allow this. The sentence does not depend on whether a chat exists."""

    status = 403


def decide(need: Need, identity: Identity, *, user: str | None = None, chats: Iterable[str] = ()) -> None:
    """Check that a client may do something, without any lookup.

    Args:
        need: the declared need.
        identity: the client's identity.
        user: the user that the request names, in NFC, in its path or as a sender; None without one.
        chats: the chats that it names.

    Raises:
        Unauthorized: a token is needed, and there is none.
        Forbidden: the token allows it neither for this user nor with these chats.
    """
    if need is Need.PUBLIC or identity.unlimited:
        return
    if identity.user is None:  # anonymous: may read some chats at most, and the name in the path has no meaning
        if need is not Need.READ or not identity.rights.read or not all(identity.may(Action.READ, chat) for chat in chats):
            raise Unauthorized
        return
    if user is not None and not identity.may_speak_for(user):
        raise Forbidden("the token is not this user's")
    action = _ACTIONS.get(need)
    if action is None:
        return
    for chat in chats:
        if not identity.may(action, chat):
            raise Forbidden(f"the token gives no right to {_WORDS[action]} this chat")


_ACTIONS = {Need.READ: Action.READ, Need.FOLLOW: Action.READ, Need.SEND: Action.SEND, Need.CREATE: Action.CREATE}
