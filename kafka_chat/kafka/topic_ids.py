"""Gives back a reference to each topic id that confluent_kafka forgets.

`AdminClient.describe_topics` of confluent_kafka 2.16.1 makes a `Uuid` for each topic that exists, and leaves one reference too
many on it: some 100 bytes a topic and call that nothing ever frees. The Tail asks each second, so 200 chats are 2 GB a day.
`tests/edges/test_librdkafka_leaks.py` says when this is mended, and this file can go. With a version that is mended nothing is done
here: the number of references is compared with that of a description made on the spot.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

from confluent_kafka import Uuid
from confluent_kafka.admin._topic import TopicDescription

if TYPE_CHECKING:
    from concurrent.futures import Future

_let_go = ctypes.pythonapi.Py_DecRef
_let_go.argtypes = [ctypes.py_object]
_let_go.restype = None


def surplus_references(description: TopicDescription) -> int:
    """Return how many surplus references a description's topic id has, besides the description's own.

    Args:
        description: that nobody else has taken the topic id of.
    """
    return _references(description) - _references(TopicDescription("", Uuid(0, 0), False, []))  # noqa: FBT003 - theirs


def release_topic_id(described: Future[TopicDescription]) -> None:
    """Give back the surplus reference of a future that is done: to be added to it as its first callback.

    A late answer passes here, too.
    """
    if described.exception() is None:
        description = described.result()
        if surplus_references(description) == 1:
            _let_go(description.topic_id)


def _references(description: TopicDescription) -> int:
    return sys.getrefcount(description.topic_id)
