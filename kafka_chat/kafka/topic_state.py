"""The states of a topic that is followed, and what takes it from one to the next.

The whole machine is `TRANSITIONS`. What a state does not list cannot happen in it: a topic has to be found before it can be opened, or
before another one can take its place.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class TopicState(Enum):
    """What is known of a topic, and what its listener was told of it."""

    REQUESTED = auto()  # nothing yet
    MISSING = auto()  # a listing lacks it; the listener knows. There may be one all the same: begin at its end
    ABSENT = auto()  # there is none, for certain: one that comes is a new one, from its first record on
    FOUND = auto()  # there is one, none of whose partitions is open yet: no leader has told its end
    CAME = auto()  # likewise, and the listener was told that it is missing
    OPENED = auto()  # the listener was told of it, and it is read


class TopicEvent(Enum):
    """What a look at a topic finds."""

    UNLISTED = auto()  # a listing lacks it, which may be that of a broker that has not heard of it yet
    GONE = auto()  # one lacks it for so long that it is certain
    LISTED = auto()  # there is one: the first, or the one that was there before
    REPLACED = auto()  # the one that was there has made place for another; `LISTED` follows
    TOLD_START = auto()  # it is known where partitions of it begin


class TopicAction(Enum):
    """What is then to be done."""

    NOTHING = auto()
    TELL_MISSING = auto()
    TELL_OPENED = auto()
    TELL_LOST = auto()
    OPEN_NEW = auto()  # open partitions that were not there before, from their first record on


class Transition(NamedTuple):
    """Where a topic goes, and what is done then."""

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
