"""Releases a reference that confluent_kafka leaks on each topic id.

`AdminClient.describe_topics` of confluent_kafka 2.16.1 makes a `Uuid` for each topic that exists, with one reference too many:
about 100 bytes per topic and call are never freed. The Tail asks each second, so 200 chats leak 2 GB a day.
`tests/edges/test_librdkafka_leaks.py` fails once this is fixed, and then this file can go. A fixed version does no harm here: the
number of references is compared with that of a description made on the spot.
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
    """Return how many leaked references a description's topic id has.

    Args:
        description: one whose topic id has no other users.
    """
    return _references(description) - _references(TopicDescription("", Uuid(0, 0), False, []))  # noqa: FBT003 - theirs


def release_topic_id(described: Future[TopicDescription]) -> None:
    """Release the leaked reference in a completed future; add this as its first callback.

    Late answers are handled, too.
    """
    if described.exception() is None:
        description = described.result()
        if surplus_references(description) == 1:
            _let_go(description.topic_id)


def _references(description: TopicDescription) -> int:
    return sys.getrefcount(description.topic_id)
