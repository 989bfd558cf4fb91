"""A right covers the chats that its pattern names, and `{user}` stands for nobody but the user who asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_chat.access.patterns import PatternError, parse_chat_pattern, parse_user_pattern
from kafka_chat.access.rights import PATTERNS, Action, Rights


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("room1", ["room1"], ["room", "room10", "Room1", ""]),
        ("room*", ["room", "room1", "room.a"], ["roo", "aroom"]),
        ("*", ["a", "global", "dm.bob.x"], []),
        ("dm.{user}.*", ["dm.ann.", "dm.ann.bob"], ["dm.ann", "dm.annx.bob", "dm.bob.ann"]),
        ("{user}", ["ann"], ["anna", "bob"]),
        ("{user}-{user}", ["ann-ann"], ["ann-bob"]),
    ],
)
def test_a_pattern_covers_a_name_a_prefix_or_the_users_own(pattern, covered, not_covered):
    parsed = parse_chat_pattern(pattern)
    assert [chat for chat in covered if not parsed.covers(chat, "ann")] == []
    assert [chat for chat in not_covered if parsed.covers(chat, "ann")] == []


@pytest.mark.parametrize("user", ["*", "a.*", "ann.bob", "ann*", "{user}", "josé", "a b", None])
def test_a_user_whose_name_could_stand_for_more_gets_nothing_from_a_pattern_with_its_name(user):
    pattern = parse_chat_pattern("dm.{user}.*")
    assert not any(pattern.covers(chat, user) for chat in ("dm.ann.bob", "dm.a.b", f"dm.{user}.x", "dm.ann.bob.x"))
    assert parse_chat_pattern("room*").covers("room1", user)


@pytest.mark.parametrize("text", ["", "a*b", "**", "*a", "room 1", "{chat}", "{user", "é", "a" * 256, None, 1, ["a"]])
def test_what_is_no_pattern_of_chats_is_refused(text):
    with pytest.raises(PatternError):
        parse_chat_pattern(text)


def test_a_pattern_of_users_is_a_name_or_a_prefix():
    assert parse_user_pattern("guest-*").covers("guest-1")
    assert not parse_user_pattern("guest-*").covers("ann")
    assert parse_user_pattern("josé").covers("josé")
    for text in ("", "a*b", None):
        with pytest.raises(PatternError):
            parse_user_pattern(text)


def test_a_list_is_of_chats_to_read_and_a_mapping_says_which_right():
    assert Rights.parse(["a"]) == Rights.parse({"read": ["a"]})
    rights = Rights.parse({"read": ["a"], "send": ["b"], "create": ["c*"]})
    allowed = {(action, chat) for action in Action for chat in ("a", "b", "c1") if rights.allow(action, chat, "ann")}
    assert allowed == {(Action.READ, "a"), (Action.SEND, "b"), (Action.CREATE, "c1")}


@pytest.mark.parametrize("claimed", ["a", 1, {"write": []}, {"read": "a"}, {"read": {}}, [[]], ["a"] * (PATTERNS + 1), {1: []}])
def test_what_names_no_rights_is_refused(claimed):
    with pytest.raises(PatternError):
        Rights.parse(claimed)


names = st.text("ab.*-", min_size=1, max_size=4)
lists = st.lists(st.sampled_from(["a", "a*", "b", "*", "{user}", "a.{user}*"]), max_size=3)


@given(lists, lists, names, st.sampled_from(["a", "b", "a.b", "*"]), st.sampled_from(list(Action)))
def test_rights_add_up_to_what_either_allows(one, other, chat, user, action):
    first, second = Rights.parse({action.value: one}), Rights.parse(other)
    both = first + second
    assert both.allow(action, chat, user) == (first.allow(action, chat, user) or second.allow(action, chat, user))


def test_rights_that_add_nothing_take_no_memory():
    some = Rights.parse(["a"])
    assert some + Rights() is some
    assert Rights() + some is some
