"""Where a client begins in a topic, from its options, its cursor, and its user's subscription."""

from __future__ import annotations

from typing import Any

import pytest

from kafka_chat.chat.partition_key import PartitionKey
from kafka_chat.chat.resume_cursor import (
    NOT_KNOWN,
    OF_A_PAGE,
    MessageIds,
    absent_entry,
    cluster_mark,
    head_of_cursor,
    parse,
    text_of,
    topic_entry,
)
from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.delivery.audience.wanted_start import (
    EARLIEST,
    LATEST,
    AtOffsets,
    Resumed,
    Rewind,
    Since,
    is_of,
    offsets_due,
    partitions_named,
)
from kafka_chat.delivery.session.beginning import Beginning, beginning_in
from kafka_chat.delivery.session.options import SessionOptions

TOPIC, OTHER, TOPIC_ID = "kafka.chat.room", "kafka.chat.other", "id1"
SUBSCRIBED = AtOffsets(TOPIC_ID, {0: 7})


def since(offset: int) -> SubscriptionChange:
    """A subscription whose record has this offset."""
    return SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=TOPIC_ID, starts={0: 7}, offset=offset)


def naming(topic: str, subscriptions: int = 10, *, complete: bool = False) -> str:
    """A whole cursor that stands at 5 in a topic."""
    return text_of(head_of_cursor(None, subscriptions, complete=complete) + topic_entry(topic, TOPIC_ID, [5]))


def id_in(topic: str) -> str:
    """A cursor that is the id of a message alone."""
    return MessageIds(topic, TOPIC_ID, 0).of(4).decode()


def absent() -> str:
    """A whole cursor of a time when there was no such topic."""
    return text_of(head_of_cursor(None, 10) + absent_entry(TOPIC))


def begins(cursor: str | None = None, change: SubscriptionChange | None = None, **asked: Any) -> Any:
    return beginning_in(TOPIC, SessionOptions(**asked), None if cursor is None else parse(cursor), change)


@pytest.mark.parametrize("change", [None, since(3), since(12)])
def test_without_a_cursor_it_begins_where_it_asks_to(change: SubscriptionChange | None) -> None:
    assert begins(None, change) == LATEST
    assert begins(None, change, start=EARLIEST) == EARLIEST
    assert begins(None, change, rewind=3) == Rewind(3)


def test_what_its_cursor_names_goes_on_there() -> None:
    for change in (None, since(-1), since(3), since(9)):
        start = begins(naming(TOPIC), change)
        assert isinstance(start, Resumed)
        assert (start.entry.next(0), start.otherwise, start.not_before) == (5, LATEST, None)


@pytest.mark.parametrize("offset", [10, 12])
def test_what_was_subscribed_to_again_since_its_cursor_goes_on_there_but_not_before_that(offset: int) -> None:
    start = begins(naming(TOPIC), since(offset), start=EARLIEST)
    assert (start.entry.next(0), start.otherwise, start.not_before) == (5, SUBSCRIBED, SUBSCRIBED)
    # Of a client that names its chats, of a page, and of what did not know, subscriptions say nothing.
    for cursor, asked in [
        (naming(TOPIC), {"chats": ("room",)}),
        (naming(TOPIC, NOT_KNOWN), {}),
        (naming(TOPIC, OF_A_PAGE), {}),
    ]:
        assert begins(cursor, since(offset), **asked).not_before is None


def test_what_only_an_id_names_was_subscribed_to_while_its_client_was_here() -> None:
    both = f"{naming(OTHER)}.{id_in(TOPIC)}"
    assert begins(both, since(3), start=EARLIEST).otherwise == SUBSCRIBED
    assert begins(id_in(TOPIC), since(3), start=EARLIEST).otherwise == EARLIEST
    assert begins(naming(TOPIC), since(3), start=EARLIEST).otherwise == EARLIEST


def test_what_a_whole_cursor_does_not_name_begins_where_it_was_subscribed_to_unless_something_else_is_asked() -> None:
    assert begins(naming(OTHER), since(12)) == SUBSCRIBED
    assert begins(naming(OTHER), since(12), start=EARLIEST) == EARLIEST
    assert begins(naming(OTHER), since(12), start=Since(5)) == Since(5)
    assert begins(naming(OTHER), None) == LATEST
    assert begins(naming(OTHER), since(-1)) == LATEST  # everybody follows it
    assert begins(id_in(OTHER), since(12)) == LATEST
    assert begins(id_in(OTHER), since(12), start=EARLIEST) == EARLIEST


def test_what_a_complete_cursor_leaves_out_begins_as_its_record_says_whatever_is_asked() -> None:
    complete = naming(OTHER, 10, complete=True)
    assert begins(complete, since(9), start=EARLIEST) == SUBSCRIBED
    assert begins(complete, since(10), start=EARLIEST) == EARLIEST
    assert begins(naming(OTHER, 10), since(9), start=EARLIEST) == EARLIEST


NOW = PartitionKey(TOPIC, "now", 0)


def again(topic_id: str, *offsets: int) -> SubscriptionChange:
    """A subscription made after `naming`'s cursor."""
    starts = dict(enumerate(offsets))
    return SubscriptionChange(username="ann", chat="room", subscribed=True, topic_id=topic_id, starts=starts, offset=12)


RECREATED = {  # the cursor, the subscription since then -> the offset that was due in a topic that is gone; None: none was
    "named by an id of the topic that was subscribed to": (f"{naming(OTHER)}.{id_in(TOPIC)}", again(TOPIC_ID, 2), 5),
    "named by an id of a topic that came after the subscription": (f"{naming(OTHER)}.{id_in(TOPIC)}", again(""), 5),
    "named by an id of neither": (f"{naming(OTHER)}.{id_in(TOPIC)}", again("between", 2), 5),
    "named by an id, and subscribed to again as it is now": (f"{naming(OTHER)}.{id_in(TOPIC)}", again("now", 2), None),
    "named by the cursor, and subscribed to again before it was deleted": (naming(TOPIC), again(TOPIC_ID, 7), 7),
    "named by the cursor, and subscribed to again at another topic": (naming(TOPIC), again("between", 2), 2),
    "named by the cursor, and subscribed to again when there was none": (naming(TOPIC), again(""), None),
    "named by the cursor, and subscribed to again as it is now": (naming(TOPIC), again("now", 2), None),
    "named by the cursor as absent, and subscribed to again at another topic": (absent(), again("between", 2), 2),
    "named by the cursor as absent, and subscribed to again when there was none": (absent(), again(""), None),
    "named by the cursor as absent, then by an id": (f"{absent()}.{id_in(TOPIC)}", again(""), 5),
    "named by the cursor, and not subscribed to again": (naming(TOPIC), since(3), 5),
}


@pytest.mark.parametrize(("cursor", "change", "due"), RECREATED.values(), ids=RECREATED)
def test_what_was_due_in_a_topic_that_is_gone_is_told_and_the_new_one_begins_at_its_start(
    cursor: str, change: SubscriptionChange, due: int | None
) -> None:
    start = begins(cursor, change)
    assert isinstance(start, Resumed)
    assert start.recreated(NOW) == due
    assert start.offset(NOW) == (2 if change.topic_id == "now" else 0)
    # Where the topic is deleted before it is known where the client begins, it is told what it was due in this very one. The start is kept
    # for the next topic of that name if it is of others alone.
    assert offsets_due(start, TOPIC, "now") == ({NOW: 2} if change.topic_id == "now" else {})
    assert is_of(start, "now") == (change.topic_id == "now")


def test_of_a_topic_that_is_gone_the_partitions_are_told_that_no_id_names() -> None:
    start = begins(f"{naming(OTHER)}.{id_in(TOPIC)}", again(TOPIC_ID, 2, 3))
    assert [start.recreated(PartitionKey(TOPIC, "now", number)) for number in range(3)] == [5, 3, None]
    assert {key.partition: offset for key, offset in offsets_due(start, TOPIC, TOPIC_ID).items()} == {0: 5, 1: 3}
    assert partitions_named(start, TOPIC_ID) == 2


def test_a_start_names_partitions_up_to_its_highest_one_of_its_very_topic() -> None:
    assert partitions_named(AtOffsets(TOPIC_ID, {0: 5, 3: 7}), TOPIC_ID) == 4
    assert partitions_named(AtOffsets(TOPIC_ID, {0: 5, 3: 7}), "id2") == 0
    assert partitions_named(AtOffsets(TOPIC_ID, {}), TOPIC_ID) == 0
    assert partitions_named(begins(naming(TOPIC)), TOPIC_ID) == 1
    assert partitions_named(begins(naming(TOPIC)), "id2") == 0
    assert partitions_named(LATEST, TOPIC_ID) == 0


def test_subscriptions_are_known_as_far_as_a_cursor_of_this_cluster_says() -> None:
    def known(cursor: str | None) -> int:
        options = SessionOptions()
        return Beginning(options, None if cursor is None else parse(cursor), cluster_mark("here")).subscriptions_known

    def of(cluster: str | None, subscriptions: int) -> str:
        head = head_of_cursor(None if cluster is None else cluster_mark(cluster), subscriptions)
        return text_of(head + topic_entry(TOPIC, TOPIC_ID, [5]))

    assert [known(of(cluster, 10)) for cluster in ("here", None, "elsewhere")] == [10, 10, 0]
    assert [known(of("here", subscriptions)) for subscriptions in (NOT_KNOWN, OF_A_PAGE, 0)] == [0, 0, 0]
    assert known(None) == 0
