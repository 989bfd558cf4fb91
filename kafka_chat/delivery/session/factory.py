"""Makes the session for a client's options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..records.formats import Format
from .event_session import EventSession
from .resumable_session import ResumableSession
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import SessionContext
    from .options import SessionOptions


def session_for(options: SessionOptions, context: SessionContext, *, username: str, caught_up: Callable[[], None]) -> Session:
    """Return a session, which must then join the `Audience`.

    Args:
        options: its client's options.
        context: the parts of the service.
        username: its user.
        caught_up: called once when it has delivered everything that existed at the connect; never for a client without options.
    """
    if options.is_default:
        return Session(context, username=username)
    kind = EventSession if options.format is Format.EVENTS else ResumableSession
    return kind(options, context, username=username, caught_up=caught_up)
