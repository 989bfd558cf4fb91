"""Many rooms, a topic each: the room of each message, the rooms of each client, and what is missing in the end."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import pairwise
from urllib.parse import urlencode, urlsplit

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.cimpl import NewTopic

PREFIX = "kafka.chat."
ROOM_TOPIC = PREFIX + "room"  # and a number
_STRIDE = 7919  # a prime, so that consecutive messages go to rooms far apart, and every room gets some
_AT_ONCE = 500  # topics made by one call
_CALLS_AT_ONCE = 8
_LEADER_SECONDS = 60.0


def room_of(number: int, rooms: int) -> int:
    """Return the room of a message; each room gets one of every `rooms` messages."""
    return number * _STRIDE % rooms


def channel_of(topic: str) -> str:
    """Return a topic's channel name at Centrifugo: its chat's name."""
    return topic.removeprefix(PREFIX)


def rooms_of(client: int, followed: int, rooms: int) -> list[int]:
    """Return the rooms that a client follows, chosen so that all rooms have the same number of followers."""
    return [(client * followed + nth) % rooms for nth in range(followed)]


def faults(numbers: list[int], wanted: set[int], rooms: int) -> tuple[int, int, int]:
    """Return how many messages one client missed, got twice, and got after a later one of the same room.

    Args:
        numbers: those of the messages that came, in order of arrival.
        wanted: the numbers that should have come.
        rooms: how many there are.
    """
    by_room: dict[int, list[int]] = defaultdict(list)
    for number in numbers:
        by_room[room_of(number, rooms)].append(number)
    disordered = sum(later < earlier for one in by_room.values() for earlier, later in pairwise(one))
    return len(wanted - set(numbers)), sum(times - 1 for times in Counter(numbers).values()), disordered


def make_topics(bootstrap: str, rooms: int) -> None:
    """Create those topics of the rooms that do not exist."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    there = admin.list_topics(timeout=30).topics
    missing = [name for name in (f"{ROOM_TOPIC}{room}" for room in range(rooms)) if name not in there]
    for low in range(0, len(missing), _AT_ONCE):
        made = admin.create_topics([NewTopic(name, 1, 1) for name in missing[low : low + _AT_ONCE]], operation_timeout=60)
        for future in made.values():
            future.result(90)
    deadline = time.monotonic() + _LEADER_SECONDS
    while missing and (leaderless := _leaderless(admin, missing)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(leaderless)} topics have no leader {_LEADER_SECONDS:.0f} s after they were made")
        time.sleep(0.5)


def _leaderless(admin: AdminClient, topics: list[str]) -> list[str]:
    """Return the one-partition topics whose end offset no broker can tell yet."""
    admin.list_topics(timeout=30)  # without this it does not find the leaders of new topics
    ends = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest() for topic in topics}, request_timeout=30)
    return [place.topic for place, end in ends.items() if end.exception(60) is not None]


def subscribe(url: str, users: list[str], followed: list[list[int]]) -> None:
    """Subscribe each user to its rooms through `POST /subscribing/…`; existing subscriptions stay."""
    server = urlsplit(url)
    assert server.hostname is not None

    def calls(nth: int) -> None:
        connection = HTTPConnection(str(server.hostname), server.port, timeout=30)
        for user, rooms in list(zip(users, followed, strict=True))[nth::_CALLS_AT_ONCE]:
            connection.request("POST", f"/subscribing/{user}?{urlencode([('topic', f'room{room}') for room in rooms])}")
            answer = connection.getresponse()
            body = json.loads(answer.read())
            if answer.status != 200:
                raise RuntimeError(f"{user} could not subscribe: {body}")
        connection.close()

    with ThreadPoolExecutor(_CALLS_AT_ONCE) as threads:
        list(threads.map(calls, range(_CALLS_AT_ONCE)))
