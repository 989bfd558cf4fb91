"""The states of a followed topic, and the transitions between them.

`TRANSITIONS` is the whole state machine. An event that is not listed for a state cannot happen in it: a topic must be
found before it can be opened or replaced.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class TopicState(Enum):
    """What we know of a topic, and what its listener knows."""

    REQUESTED = auto()  # nothing yet
    MISSING = auto()  # missing in a listing, as the listener knows. It may exist all the same: start at its end
    ABSENT = auto()  # certainly does not exist: if it appears it is new, and starts at its first record
    FOUND = auto()  # it exists, but no partition is open yet: no leader has answered where it ends
    CAME = auto()  # like FOUND, but the listener knows it as missing
    OPENED = auto()  # the listener knows it, and it is being read


class TopicEvent(Enum):
    """What a look at a topic finds."""

    UNLISTED = auto()  # missing in a listing; the broker may not know it yet
    GONE = auto()  # missing in listings for long enough to be certain
    LISTED = auto()  # it is listed: for the first time, or unchanged
    REPLACED = auto()  # another topic has replaced it; `LISTED` follows
    TOLD_START = auto()  # the starts of its partitions are known


class TopicAction(Enum):
    """The action to take."""

    NOTHING = auto()
    TELL_MISSING = auto()
    TELL_OPENED = auto()
    TELL_LOST = auto()
    OPEN_NEW = auto()  # open added partitions, from their first record on


class Transition(NamedTuple):
    """A topic's next state, and the action."""

    state: TopicState
    action: TopicAction


_S, _E, _A = TopicState, TopicEvent, TopicAction

TRANSITIONS = {
    (_S.REQUESTED, _E.UNLISTED): Transition(_S.MISSING, _A.TELL_MISSING),
    (_S.REQUESTED, _E.GONE): Transition(_S.ABSENT, _A.TELL_MISSING),
    (_S.REQUESTED, _E.LISTED): Transition(_S.FOUND, _A.NOTHING),
    (_S.MISSING, _E.UNLISTED): Transition(_S.MISSING, _A.NOTHING),
    (_S.MISSING, _E.GONE): Transition(_S.ABSENT, _A.NOTHING),
    (_S.MISSING, _E.LISTED): Transition(_S.CAME, _A.NOTHING),
    (_S.ABSENT, _E.UNLISTED): Transition(_S.ABSENT, _A.NOTHING),
    (_S.ABSENT, _E.GONE): Transition(_S.ABSENT, _A.NOTHING),
    (_S.ABSENT, _E.LISTED): Transition(_S.CAME, _A.OPEN_NEW),
    (_S.FOUND, _E.UNLISTED): Transition(_S.FOUND, _A.NOTHING),
    (_S.FOUND, _E.GONE): Transition(_S.ABSENT, _A.TELL_MISSING),
    (_S.FOUND, _E.LISTED): Transition(_S.FOUND, _A.OPEN_NEW),
    (_S.FOUND, _E.REPLACED): Transition(_S.FOUND, _A.NOTHING),
    (_S.FOUND, _E.TOLD_START): Transition(_S.OPENED, _A.TELL_OPENED),
    (_S.CAME, _E.UNLISTED): Transition(_S.CAME, _A.NOTHING),
    (_S.CAME, _E.GONE): Transition(_S.ABSENT, _A.NOTHING),
    (_S.CAME, _E.LISTED): Transition(_S.CAME, _A.OPEN_NEW),
    (_S.CAME, _E.REPLACED): Transition(_S.CAME, _A.NOTHING),
    (_S.CAME, _E.TOLD_START): Transition(_S.OPENED, _A.TELL_OPENED),
    (_S.OPENED, _E.UNLISTED): Transition(_S.OPENED, _A.NOTHING),
    (_S.OPENED, _E.GONE): Transition(_S.ABSENT, _A.TELL_LOST),
    (_S.OPENED, _E.LISTED): Transition(_S.OPENED, _A.OPEN_NEW),
    (_S.OPENED, _E.REPLACED): Transition(_S.ABSENT, _A.TELL_LOST),
    (_S.OPENED, _E.TOLD_START): Transition(_S.OPENED, _A.TELL_OPENED),
}
