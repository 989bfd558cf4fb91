"""The fold of subscription records: pure, and the same on every instance."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.chat.subscription_change import SubscriptionChange
from kafka_chat.chat.subscription_fold import MANY, Following, Skip, record_key, record_value


def subscribed(username: str, chat: str, start: int = 12) -> SubscriptionChange:
    return SubscriptionChange(username=username, chat=chat, subscribed=True, topic_id="id1", starts={0: start, 1: 0})


def ended(username: str, chat: str) -> SubscriptionChange:
    return SubscriptionChange(username=username, chat=chat, subscribed=False, starts={})


VALUE = record_value(subscribed("ann", "room1"))

users = st.sampled_from(["ann", "bob", "Zoë", 'a b"c\\'])
chats = st.sampled_from(["room", "room1", "room.1", "r"])
pairs = st.tuples(users, chats)
subscriptions = st.builds(lambda pair, offset: subscribed(*pair, offset), pairs, st.integers(0, 2**62))
records = st.lists(st.one_of(st.builds(lambda pair: ended(*pair), pairs), subscriptions), max_size=40)


def as_record(change: SubscriptionChange) -> tuple[bytes, bytes | None]:
    return record_key(change.username, change.chat), record_value(change)


def folded(log: list[tuple[bytes, bytes | None]]) -> Following:
    following = Following()
    for key, value in log:
        assert not isinstance(following.apply(key, value), Skip)
    return following


def everything(following: Following) -> dict[str, dict[str, SubscriptionChange]]:
    return {user: found for user in ["ann", "bob", "Zoë", 'a b"c\\'] if (found := following.chats_of(user))}


@pytest.mark.promise("p-subscription-record")
def test_records_look_as_they_are_documented() -> None:
    assert record_key("ann", "room1") == b'{"user":"ann","chat":"room1"}'
    assert VALUE == b'{"v":1,"topic_id":"id1","from":{"0":12,"1":0}}'


def test_a_subscription_and_its_tombstone() -> None:
    following = Following()
    key = record_key("ann", "room1")
    assert following.apply(key, VALUE) == subscribed("ann", "room1")
    assert following.chats_of("ann") == {"room1": subscribed("ann", "room1")}
    assert following.apply(key, None) == ended("ann", "room1")
    assert following.chats_of("ann") == {}
    assert len(following) == 0


def test_each_change_tells_the_offset_of_its_record() -> None:
    following = Following()
    key = record_key("ann", "room1")
    told = [following.apply(key, VALUE, offset=4), following.apply(key, None, offset=5)]
    assert [change.offset for change in told if isinstance(change, SubscriptionChange)] == [4, 5]


def test_a_second_subscription_keeps_the_start_of_the_first() -> None:
    following = Following()
    key = record_key("ann", "room1")
    following.apply(key, VALUE)
    assert following.apply(key, record_value(subscribed("ann", "room1", 99))) is None
    assert following.chats_of("ann") == {"room1": subscribed("ann", "room1")}


def test_ending_what_is_not_followed_changes_nothing() -> None:
    assert Following().apply(record_key("ann", "room1"), None) is None


def test_chats_whose_names_begin_alike_are_apart() -> None:
    following = folded([as_record(subscribed("ann", "room")), as_record(subscribed("ann", "room.1")), as_record(ended("ann", "room"))])
    assert following.chats_of("ann") == {"room.1": subscribed("ann", "room.1")}


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"ann",
        b"\xff",
        b'{"user":"ann"}',
        b'{"chat":"room1","user":"ann"}',
        b'{"user":"ann", "chat":"room1"}',
        b'{"user":"ann","chat":"room1","more":1}',
        b'{"user":"ann","user":"ann","chat":"room1"}',
        b'{"user":"\\u0061nn","chat":"room1"}',
        b'{"user":"","chat":"room1"}',
        b'{"user":"a/b","chat":"room1"}',
        b'{"user":"a\\nb","chat":"room1"}',
        '{"user":"e\u0301","chat":"room1"}'.encode(),
        b'{"user":"ann","chat":""}',
        b'{"user":"ann","chat":"room 1"}',
        b'{"user":"ann","chat":"' + b"r" * 250 + b'"}',
        b'{"user":1,"chat":"room1"}',
        b"[" * 100_000,
    ],
)
def test_a_key_that_is_not_written_as_we_write_it_is_skipped(key: bytes | None) -> None:
    following = Following()
    assert following.apply(key, VALUE) is Skip.BAD_KEY
    assert len(following) == 0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"1",
        b"null",
        b"\xff",
        b"{}",
        b'{"v":1}',
        b'{"v":1,"topic_id":"id1"}',
        b'{"v":1,"topic_id":1,"from":{}}',
        b'{"v":1,"topic_id":"id1","from":{"x":1}}',
        b'{"v":1,"topic_id":"id1","from":{"0":-1}}',
        b'{"v":1,"topic_id":"id1","from":{"-1":1}}',
        b'{"v":1,"topic_id":"id1","from":{"0":1.5}}',
        b'{"v":1,"topic_id":"id1","from":{"0":"1"}}',
        b'{"v":1,"topic_id":"id1","from":{"0":NaN}}',
        b'{"v":"1","topic_id":"id1","from":{}}',
        b'{"v":1,"topic_id":"id1","from":{},"x":' + b"[" * 100_000,
    ],
)
def test_a_value_that_makes_no_sense_is_skipped_and_leaves_what_was(value: bytes) -> None:
    following = folded([as_record(subscribed("ann", "room1"))])
    assert following.apply(record_key("ann", "room1"), value) is Skip.BAD_VALUE
    assert following.apply(record_key("bob", "room1"), value) is Skip.BAD_VALUE
    assert following.chats_of("ann") == {"room1": subscribed("ann", "room1")}
    assert following.chats_of("bob") == {}


@pytest.mark.parametrize("value", [b'{"v":2}', b'{"v":2,"topic_id":"id1","from":{"0":1}}', b'{"from":[],"v":0}'])
@pytest.mark.promise("p-versions-share")
def test_a_version_that_is_not_ours_is_left_to_those_who_know_it(value: bytes) -> None:
    following = folded([as_record(subscribed("ann", "room1"))])
    assert following.apply(record_key("ann", "room1"), value) is Skip.UNKNOWN_VERSION
    assert following.chats_of("ann") == {"room1": subscribed("ann", "room1")}


def test_further_keys_of_a_value_are_ignored() -> None:
    value = b'{"v":1,"by":{"x":[1]},"topic_id":"id1","from":{"0":12,"1":0}}'
    assert Following().apply(record_key("ann", "room1"), value) == subscribed("ann", "room1")


def test_the_empty_record_that_makes_the_embedded_topic_says_nothing() -> None:
    assert Following().apply(None, None) is None


@given(st.one_of(st.none(), st.binary()), st.one_of(st.none(), st.binary()))
def test_no_bytes_at_all_raise(key: bytes | None, value: bytes | None) -> None:
    following = folded([as_record(subscribed("ann", "room2"))])
    following.apply(key, value)
    following.apply(record_key("ann", "room1"), value)
    assert following.chats_of("ann")["room2"] == subscribed("ann", "room2")


@given(records)
def test_the_fold_is_what_a_dictionary_would_be(log: list[SubscriptionChange]) -> None:
    expected: dict[str, dict[str, SubscriptionChange]] = {}
    for change in log:
        chats_of_user = expected.setdefault(change.username, {})
        if change.subscribed:
            chats_of_user.setdefault(change.chat, change)
        else:
            chats_of_user.pop(change.chat, None)
    assert everything(folded([*map(as_record, log)])) == {user: found for user, found in expected.items() if found}


@given(records, st.randoms(use_true_random=False))
def test_compaction_changes_nobodys_chats(log, random) -> None:
    raw = [*map(as_record, log)]
    last = {key: index for index, (key, _) in enumerate(raw)}
    # A cleaner drops any records that are not their key's last; and a tombstone that is, once nothing is left before it.
    gone = {key for key, index in last.items() if raw[index][1] is None and random.random() < 0.5}
    compacted = [
        (key, value) for index, (key, value) in enumerate(raw) if key not in gone and (index == last[key] or random.random() < 0.5)
    ]
    whole, partial = everything(folded(raw)), everything(folded(compacted))
    assert {user: found.keys() for user, found in whole.items()} == {user: found.keys() for user, found in partial.items()}


@given(records, records)
def test_the_difference_turns_one_fold_into_the_other(before_log, after_log) -> None:
    before, after = folded([*map(as_record, before_log)]), folded([*map(as_record, after_log)])
    followed = {(user, chat) for user, found in everything(before).items() for chat in found}
    for change in after.changes_from(before):
        pair = (change.username, change.chat)
        if change.subscribed:
            assert pair not in followed
            assert after.chats_of(change.username)[change.chat] == change
            followed.add(pair)
        else:
            followed.remove(pair)
    assert followed == {(user, chat) for user, found in everything(after).items() for chat in found}


@given(records, st.lists(st.integers(0, 40), max_size=5))
def test_two_instances_that_read_in_any_steps_are_told_the_same(log, cuts) -> None:
    raw = [*map(as_record, log)]
    whole = Following()
    told = [whole.apply(*record) for record in raw]
    pieces = Following()
    told_in_pieces = []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(raw)], strict=True):
        told_in_pieces += [pieces.apply(*record) for record in raw[begin:end]]
    assert told == told_in_pieces
    assert everything(whole) == everything(pieces)


def test_values_are_strict_json() -> None:
    assert json.loads(record_key('a"b\\c\u2028', "room")) == {"user": 'a"b\\c\u2028', "chat": "room"}


def test_a_record_costs_the_same_however_many_chats_its_user_has():
    value = VALUE

    def cpu_seconds(chats: int) -> float:
        records = [record_key("ann", f"room{number}") for number in range(chats)]
        following, began = Following(), time.process_time()
        for key in records:
            following.apply(key, value)
        for key in records:
            assert following.apply(key, value) is None
        for key in records:
            assert following.apply(key, None) is not None
        assert len(following) == 0
        return time.process_time() - began

    few = min(cpu_seconds(500) for _ in range(3))
    assert min(cpu_seconds(10_000) for _ in range(2)) < 20 * few * 3  # 400 times as long, where each walks over all


@pytest.mark.parametrize("chats", [1, MANY - 1, MANY, MANY + 1, 3 * MANY])
def test_few_and_many_chats_of_a_user_are_told_alike(chats: int):
    following, expected = Following(), {}
    for number in range(chats):
        following.apply(record_key("ann", f"room{number}"), VALUE, offset=number)
        expected[f"room{number}"] = number
    for number in range(chats):
        assert {chat: subscription.offset for chat, subscription in following.chats_of("ann").items()} == expected
        following.apply(record_key("ann", f"room{number}"), None)
        del expected[f"room{number}"]
        following.apply(record_key("ann", f"roo{number}"), None)  # the beginning of another one's name
    assert following.chats_of("ann") == {}
