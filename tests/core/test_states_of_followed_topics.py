"""The states of a followed topic: each transition of the table, and what a listener is notified of."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat.names import ChatNames
from kafka_chat.chat.resume_cursor import cluster_mark
from kafka_chat.delivery.ports import TopicFacts
from kafka_chat.kafka.cluster import Cluster
from kafka_chat.kafka.connect import ClientConfig
from kafka_chat.kafka.followed_request import FollowedRequest
from kafka_chat.kafka.tail import KafkaTail
from kafka_chat.kafka.topic_state import TRANSITIONS, TopicAction, TopicEvent, TopicState
from kafka_chat.settings.model import KafkaSettings, Limits
from kafka_chat.telemetry.metrics import Telemetry
from tests.support.fake_topics import PREFIX, FakeKafka
from tests.support.tails import Gone, Missing, Opened, Told

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kafka_chat.chat.partition_key import PartitionKey
    from kafka_chat.kafka.lookup import LogEnd

S, E = TopicState, TopicEvent

# A topic that nobody has found makes place for no other, and nobody tells where it begins.
UNFOUND = (S.REQUESTED, S.MISSING, S.ABSENT)
IMPOSSIBLE = set(product(UNFOUND, (E.REPLACED, E.TOLD_START)))
TOLD_MISSING = {S.MISSING, S.ABSENT, S.CAME}  # or lost, which is no less


@pytest.mark.parametrize(("state", "event"), list(product(S, E)), ids=lambda one: one.name)
def test_each_event_has_its_step_in_each_state_where_it_can_happen(state: TopicState, event: TopicEvent) -> None:
    followed = FollowedRequest("kafka.chat.room", 0.0, state=state)
    if (state, event) in IMPOSSIBLE:
        with pytest.raises(KeyError):
            followed.take(event)
        return
    action = followed.take(event)
    assert (followed.state, action) == TRANSITIONS[state, event]
    if event is E.GONE:
        assert followed.state is S.ABSENT
    if event is E.UNLISTED:  # in doubt: what was found stays so
        assert (followed.state is state) == (state is not S.REQUESTED)
    assert (action is TopicAction.TELL_OPENED) == (event is E.TOLD_START)
    assert (followed.state is S.OPENED) == (event is E.TOLD_START or (state is S.OPENED and event in (E.UNLISTED, E.LISTED)))
    assert (action is TopicAction.TELL_LOST) == (state is S.OPENED and event in (E.GONE, E.REPLACED))
    assert (action is TopicAction.TELL_MISSING) == (state in (S.REQUESTED, S.FOUND) and followed.state in TOLD_MISSING)
    assert (action is TopicAction.OPEN_NEW) == (event is E.LISTED and state not in (S.REQUESTED, S.MISSING))
    assert followed.watched == (followed.state is not S.FOUND)


@given(st.lists(st.sampled_from(TopicEvent), max_size=60))
def test_whatever_happens_a_listener_is_told_of_each_change_once(events: Sequence[TopicEvent]) -> None:
    followed = FollowedRequest("kafka.chat.room", 0.0)
    opened = missing = False
    for event in events:
        if (followed.state, event) in IMPOSSIBLE:
            continue
        action = followed.take(event)
        if action is TopicAction.TELL_MISSING:
            assert not missing
            assert not opened
            missing = True
        elif action is TopicAction.TELL_LOST:
            assert opened
            opened, missing = False, True
        elif action is TopicAction.TELL_OPENED:
            opened, missing = True, False
        assert opened == (followed.state is S.OPENED)
        assert missing == (followed.state in TOLD_MISSING)


class Topics(FakeKafka):
    """Brokers of which one may be behind: it answers every second question as things were.

    Attributes:
        behind: what that one knows: topic -> its identity and partitions.
        leaderless: topics without leaders.
    """

    def __init__(self, *, behind_first: bool) -> None:
        super().__init__()
        self.behind: dict[str, TopicFacts] = {}
        self.leaderless: set[str] = set()
        self._turn = behind_first

    @property
    def known(self) -> dict[str, TopicFacts]:
        return {
            topic: TopicFacts(
                topic_id=facts.topic_id,
                partitions=frozenset(facts.partitions),
                leaderless=frozenset(facts.partitions) if topic in self.leaderless else frozenset(),
            )
            for topic, facts in self.topics.items()
        }

    def add_partition(self, topic: str) -> None:
        partitions = self.topics[topic].partitions
        partitions[len(partitions)] = type(partitions[0])()

    async def describe(self, topics: Collection[str]) -> Mapping[str, TopicFacts]:
        await trio.sleep(0.01)
        self._turn = not self._turn
        known = self.known if self._turn else self.behind
        return {topic: known[topic] for topic in topics if topic in known}

    async def log_ends(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, LogEnd]:
        await trio.sleep(0.01)
        return await super().log_ends([key for key in keys if key.topic not in self.leaderless])

    async def high_watermarks(self, keys: Collection[PartitionKey]) -> Mapping[PartitionKey, int]:
        return await self.last_stable_offsets(keys)


class Step(NamedTuple):
    """What somebody does, to which topic, and how long nothing happens then."""

    what: Literal["create", "delete", "grow", "lead", "unlead", "hear", "request", "leave", "replace"]
    topic: str
    seconds: float


TOPICS = [PREFIX + "a", PREFIX + "b"]
STEPS = st.builds(
    Step,
    st.sampled_from(["create", "create", "delete", "grow", "lead", "unlead", "hear", "hear", "request", "leave", "replace"]),
    st.sampled_from(TOPICS),
    st.sampled_from([0.0, 0.02, 0.3, 1.2, 3.0]),
)


class Listened(Told):
    """Also checks that a topic is reported missing once until it is opened, and that a topic that is not followed is never reported.

    Attributes:
        followed: topics.
        absent: those of them that it was told are missing, or lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.followed: set[str] = set()
        self.absent: set[str] = set()
        self.during = self.check

    def check(self, event: object) -> None:
        assert isinstance(event, Opened | Missing | Gone)
        assert event.topic in self.followed
        if isinstance(event, Opened):
            assert event.starts
            assert event.topic_id
            self.absent.discard(event.topic)
        else:
            assert event.topic not in self.absent
            self.absent.add(event.topic)

    def forget(self, topic: str) -> None:
        self.followed.discard(topic)
        self.absent.discard(topic)
        self.positions = {key: position for key, position in self.positions.items() if key.topic != topic}


@given(st.lists(STEPS, max_size=25))
def test_whatever_becomes_of_topics_they_are_told_of_in_order_and_all_that_are_there_are_open_at_the_end(steps: Sequence[Step]) -> None:
    trio.run(_live_through, steps, clock=trio.testing.MockClock(autojump_threshold=0))


A, B = TOPICS

EXAMPLES = {
    "deleted before a leader told where it begins": [Step("unlead", A, 0), Step("create", A, 0), Step("hear", A, 2), Step("delete", A, 5)],
    # Asked first is the broker that knows the new one, then the one that is behind.
    "requested while one broker still names the topic that was there before": [
        Step("leave", A, 0),
        Step("leave", B, 3),
        Step("create", A, 0),
        Step("hear", A, 0),
        Step("delete", A, 0),
        Step("create", A, 0),
        Step("request", A, 3),
    ],
}


@pytest.mark.parametrize("steps", EXAMPLES.values(), ids=EXAMPLES)
def test_what_has_gone_wrong_before(steps: Sequence[Step]) -> None:
    for first in (False, True):  # which broker is asked first
        trio.run(partial(_live_through, steps, behind_first=first), clock=trio.testing.MockClock(autojump_threshold=0))


async def _live_through(steps: Sequence[Step], *, behind_first: bool = False) -> None:
    kafka, told = Topics(behind_first=behind_first), Listened()
    cluster = Cluster(kafka, Telemetry())  # type: ignore[arg-type]
    tail = KafkaTail(
        ClientConfig(KafkaSettings(bootstrap_servers="nowhere:1")),
        listener=told,
        lookup=kafka,  # type: ignore[arg-type]
        cluster=cluster,
        names=ChatNames(PREFIX),
        limits=Limits(),
        telemetry=Telemetry(),
    )

    for topic in TOPICS:
        _do(Step("request", topic, 0), kafka, tail, told)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        nursery.start_soon(tail.run_requests)
        nursery.start_soon(tail.run_watch)
        for step in steps:
            _do(step, kafka, tail, told)
            await trio.sleep(step.seconds)
        kafka.leaderless.clear()
        kafka.behind = kafka.known
        for topic in TOPICS:
            _do(Step("request", topic, 0), kafka, tail, told)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    there = {kafka.key(topic, number) for topic, facts in kafka.topics.items() for number in facts.partitions}
    assert told.positions.keys() == there
    assert told.absent == set(TOPICS) - kafka.topics.keys()
    assert cluster.mark == cluster_mark(kafka.cluster)


def _do(step: Step, kafka: Topics, tail: KafkaTail, told: Listened) -> None:
    topic = step.topic
    match step.what:
        case "create" if topic not in kafka.topics:
            kafka.create(topic, partitions=2)
        case "delete" if topic in kafka.topics:
            kafka.delete(topic)
        case "grow" if topic in kafka.topics:
            kafka.add_partition(topic)
        case "lead":
            kafka.leaderless.discard(topic)
        case "unlead":
            kafka.leaderless.add(topic)
        case "hear":
            kafka.behind = kafka.known
        case "replace":  # all brokers by those of another cluster, whose topics are others
            kafka.cluster += "'"
            kafka.topics.clear()
            kafka.behind = {}
        case "request" if topic not in told.followed:
            told.followed.add(topic)
            tail.follow(topic)
        case "leave":
            tail.unfollow(topic)
            told.forget(topic)
