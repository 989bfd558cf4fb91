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
    """Return a session, which then joins the `Audience`.

    Args:
        options: what its client asked for.
        context: the service.
        username: whose it is.
        caught_up: called once when it has delivered everything that was there; not by one without options.
    """
    if options.is_default:
        return Session(context, username=username)
    kind = EventSession if options.format is Format.EVENTS else ResumableSession
    return kind(options, context, username=username, caught_up=caught_up)
