"""However many notices are pending, the merged ones are few, and end with the same knowledge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kafka_chat.chat.loss_cause import LossCause
from kafka_chat.delivery.session.notice_queue import NoticeQueue
from kafka_chat.delivery.session.notices import Failed, Gap, Heartbeat, Hello, Limits, Live, Notice, Pong, Subscribed, Unsubscribed

CHATS = ("a", "b", "c")
PARTITIONS = 2
CAUSES = (LossCause.RETENTION, LossCause.TRUNCATED, LossCause.RECREATED)


def gap(first_lost: int, first_left: int, cause: LossCause = LossCause.RETENTION, *, chat: str = "a", partition: int = 0) -> Gap:
    return Gap(chat=chat, partition=partition, first_lost=first_lost, first_left=first_left, cause=cause)


def subscribed(chat: str = "a", at: int = 0) -> Subscribed:
    return Subscribed(chat=chat, exists=True, positions={0: at})


def unsubscribed(chat: str = "a", at: int = 0) -> Unsubscribed:
    return Unsubscribed(chat=chat, exists=True, positions={0: at})


def hello(*chats: str) -> Hello:
    return Hello(session="s", user="ann", chats=chats, resume="none", cursor="c", limits=Limits(1, 1, 1, None))


def said(queue: NoticeQueue) -> list[Notice]:
    return [queue.pop(lambda: "now") for _ in range(len(queue))]


def queue_of(*notices: Notice) -> NoticeQueue:
    queue = NoticeQueue()
    for notice in notices:
        if isinstance(notice, Gap):
            queue.add_gap(notice)
        elif isinstance(notice, (Subscribed, Unsubscribed)):
            queue.add_subscription(notice, 0)
    return queue


@pytest.mark.promise("p-merged")
def test_gaps_of_a_partition_are_one_from_what_was_due_first_to_where_it_goes_on() -> None:
    assert said(queue_of(gap(5, 10), gap(10, 30))) == [gap(5, 30)]
    assert said(queue_of(gap(5, 10), gap(7, 9, partition=1))) == [gap(5, 10), gap(7, 9, partition=1)]


@pytest.mark.parametrize("first", CAUSES)
@pytest.mark.parametrize("second", CAUSES)
def test_a_gap_of_several_causes_has_the_one_that_says_most(first: LossCause, second: LossCause) -> None:
    assert said(queue_of(gap(5, 10, first), gap(10, 2, second))) == [gap(5, 2, max(first, second, key=CAUSES.index))]


@pytest.mark.promise("p-merged")
def test_of_the_changes_of_a_chat_the_last_one_is_said() -> None:
    assert said(queue_of(unsubscribed(), subscribed(at=7))) == [subscribed(at=7)]
    assert said(queue_of(unsubscribed(), subscribed(at=7), unsubscribed(at=9))) == [unsubscribed(at=9)]


def test_a_chat_that_came_and_went_before_the_client_heard_of_it_is_not_mentioned() -> None:
    assert said(queue_of(subscribed(), unsubscribed())) == []
    assert said(queue_of(subscribed(), unsubscribed(), subscribed(at=3))) == [subscribed(at=3)]


def test_a_chat_that_the_client_has_heard_of_is_told_to_be_gone() -> None:
    queue = queue_of(subscribed())
    assert said(queue) == [subscribed()]
    queue.add_subscription(unsubscribed(), 0)
    assert said(queue) == [unsubscribed()]


def test_a_chat_that_hello_lists_is_told_to_be_gone() -> None:
    queue = queue_of(subscribed())
    queue.add_hello(hello("a"))
    queue.add_subscription(unsubscribed(), 0)
    assert said(queue) == [hello("a"), unsubscribed()]


def test_what_is_merged_takes_the_place_of_the_later() -> None:
    assert said(queue_of(gap(5, 10), subscribed("b"), gap(10, 20))) == [subscribed("b"), gap(5, 20)]


@pytest.mark.promise("p-live-last")
def test_hello_comes_first_and_live_and_heartbeats_last_with_the_cursor_of_that_moment() -> None:
    queue = NoticeQueue()
    queue.add_heartbeat()
    queue.add_live()
    queue.add_gap(gap(5, 10))
    queue.add_heartbeat()
    queue.add_hello(hello())
    assert said(queue) == [hello(), gap(5, 10), Live(cursor="now"), Heartbeat(cursor="now")]
    assert not queue


def test_answers_keep_their_order_and_each_is_said() -> None:
    queue = NoticeQueue()
    for _ in range(3):
        queue.begin_op([])
        queue.add_answers([Pong(), Failed(code=400, message="no", field=None)], {})
    assert said(queue) == [Pong(), Failed(code=400, message="no", field=None)] * 3


def test_the_change_that_an_op_makes_is_said_by_its_answer_alone() -> None:
    queue = queue_of(unsubscribed())
    queue.begin_op(["a"])
    queue.add_subscription(subscribed(at=5), 7)
    queue.add_answers([subscribed(at=5)], {"a": 7})
    assert said(queue) == [subscribed(at=5)]


@pytest.mark.promise("p-subscribed")
def test_an_answer_says_where_delivery_ended_and_from_where_it_goes_on() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a"])
    queue.add_subscription(unsubscribed(at=440), 7)  # up to there it was delivered while the op's record was being written
    queue.add_answers([unsubscribed(at=390)], {"a": 7})
    queue.begin_op(["a"])
    queue.add_subscription(subscribed(at=500), 8)
    queue.add_answers([subscribed(at=530)], {"a": 8})  # what lies before came before the answer
    assert said(queue) == [unsubscribed(at=440), subscribed(at=530)]


@pytest.mark.promise("p-subscribed")
def test_an_answer_has_the_positions_of_its_own_record_also_where_others_changed_the_chat_after_it() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a"])
    queue.add_subscription(unsubscribed(at=440), 7)
    queue.add_subscription(subscribed(at=450), 8)
    queue.add_subscription(unsubscribed(at=460), 9)
    queue.add_answers([unsubscribed(at=390)], {"a": 7})
    assert said(queue) == [unsubscribed(at=440), unsubscribed(at=460)]


def test_what_somebody_else_does_to_the_chat_of_an_op_is_said_after_its_answer() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a"])
    queue.add_subscription(subscribed(), 7)
    queue.add_subscription(unsubscribed(at=3), 8)
    queue.add_answers([subscribed()], {"a": 7})
    assert said(queue) == [subscribed(), unsubscribed(at=3)]


def test_that_somebody_else_does_the_same_later_is_said_for_its_positions_are_others() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a"])
    queue.add_subscription(subscribed(), 7)
    queue.add_subscription(unsubscribed(at=3), 8)
    queue.add_subscription(subscribed(at=9), 9)
    queue.add_answers([subscribed()], {"a": 7})
    assert said(queue) == [subscribed(), subscribed(at=9)]


def test_what_was_so_before_the_record_of_an_op_its_answer_says() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a"])
    queue.add_subscription(subscribed(at=5), 6)  # of somebody else, a moment earlier
    queue.add_answers([subscribed(at=5)], {"a": 7})
    assert said(queue) == [subscribed(at=5)]


def test_an_op_that_wrote_nothing_for_a_chat_says_nothing_of_what_others_did() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a", "b"])
    queue.add_subscription(unsubscribed(), 6)
    queue.add_answers([subscribed(), subscribed("b")], {"b": 7})
    assert said(queue) == [subscribed(), subscribed("b"), unsubscribed()]


def test_what_an_op_that_failed_has_changed_all_the_same_is_said_after_its_answer() -> None:
    failed = Failed(code=503, message="no broker answers", field=None)
    queue = NoticeQueue()
    queue.begin_op(["a"])
    queue.add_subscription(subscribed(), 1)
    queue.add_answers([failed], {})
    assert said(queue) == [failed, subscribed()]
    queue.begin_op(["a"])
    queue.add_subscription(unsubscribed(), 2)
    queue.add_subscription(subscribed(at=4), 3)
    queue.add_answers([failed], {})
    queue.add_subscription(unsubscribed(), 4)
    assert said(queue) == [failed, unsubscribed()]


def test_nothing_is_left_after_clear() -> None:
    queue = queue_of(subscribed(), gap(5, 10))
    queue.add_hello(hello())
    queue.add_live()
    queue.clear()
    assert not queue
    with pytest.raises(IndexError):
        queue.pop(lambda: None)


# Any sequence


@dataclass
class Client:
    """A client's knowledge, folded from its notices."""

    followed: dict[str, bool] = field(default_factory=dict)
    goes_on: dict[tuple[str, int], int] = field(default_factory=dict)
    lost: dict[tuple[str, int], tuple[int, int, int]] = field(default_factory=dict)  # first lost, first left, strongest cause
    answers: list[Notice] = field(default_factory=list)
    live: bool = False
    heartbeat: bool = False

    def hear(self, notice: Notice) -> None:
        match notice:
            case Gap():
                at, cause = (notice.chat, notice.partition), CAUSES.index(notice.cause)
                first, _, strongest = self.lost.get(at, (notice.first_lost, 0, cause))
                self.lost[at] = first, notice.first_left, max(strongest, cause)
                self.goes_on[at] = notice.first_left
            case Subscribed() | Unsubscribed():
                if notice.re:
                    self.answers.append(notice)
                for partition in range(PARTITIONS):
                    self.goes_on.pop((notice.chat, partition), None)
                self.followed.pop(notice.chat, None)
                if isinstance(notice, Subscribed):
                    self.followed[notice.chat] = notice.exists
                    self.goes_on |= {(notice.chat, partition): at for partition, at in notice.positions.items()}
            case Live():
                self.live = True
            case Heartbeat():
                self.heartbeat = True
            case _:
                self.answers.append(notice)

    def where(self) -> dict[tuple[str, int], int]:
        return {at: offset for at, offset in self.goes_on.items() if at[0] in self.followed}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("gap"), st.sampled_from(CHATS), st.integers(0, PARTITIONS - 1), st.sampled_from(CAUSES)),
        st.tuples(st.just("toggle"), st.sampled_from(CHATS)),
        st.tuples(st.just("toggle"), st.sampled_from(CHATS)),
        st.tuples(st.sampled_from(["live", "heartbeat", "op done", "op failed"])),
        st.tuples(st.just("op"), st.sampled_from([Subscribed, Unsubscribed]), st.lists(st.sampled_from(CHATS), unique=True)),
        st.tuples(st.just("take"), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(st.sets(st.sampled_from(CHATS)), STEPS)
@pytest.mark.promise("p-merged")
def test_whatever_happens_the_queue_is_short_and_nothing_that_a_client_must_know_is_lost(
    begun: set[str], steps: list[tuple[Any, ...]]
) -> None:
    queue, followed, offset = NoticeQueue(), dict.fromkeys(begun, True), 0
    told, hears_all = Client(followed=dict(followed)), Client(followed=dict(followed))
    own: dict[str, list[tuple[int, type]]] = {}  # chats of the op that is being done -> what has been so of each since it began
    changed: dict[str, Subscribed | Unsubscribed] = {}  # the last change of each of those
    ends: dict[str, Unsubscribed] = {}  # the first change of each of those, where the chat was left by it
    kind: type = Subscribed
    answers = 0

    def change(chat: str) -> None:
        positions = dict.fromkeys(range(PARTITIONS), offset)
        made = Unsubscribed if followed.pop(chat, False) else Subscribed
        if made is Subscribed:
            followed[chat] = True
        notice = made(chat=chat, exists=True, positions=positions)
        queue.add_subscription(notice, offset)
        if chat in own:
            own[chat].append((offset, made))
            if chat not in changed and isinstance(notice, Unsubscribed):
                ends[chat] = notice
            changed[chat] = notice
        else:
            hears_all.hear(notice)

    def end_op(answers: list[Any]) -> None:
        """Have all that is not said by an answer said after them."""
        of_kind = {chat: [at for at, made in was if made is kind and at] for chat, was in own.items()}
        written = {answer.chat: of_kind[answer.chat][-1] for answer in answers if of_kind.get(getattr(answer, "chat", ""))}
        queue.add_answers(answers, written)
        for answer in answers:
            ending = None
            if isinstance(answer, Unsubscribed) and answer.chat in written:
                last = changed[answer.chat]
                ending = last if own[answer.chat][-1][0] <= written[answer.chat] else ends.get(answer.chat)
            hears_all.hear(answer if ending is None else replace(answer, positions=ending.positions))
        for chat, notice in changed.items():
            if own[chat][-1][0] > written.get(chat, -1):
                hears_all.hear(notice)
        own.clear()
        changed.clear()
        ends.clear()

    for step in steps:
        offset += 10
        match step:
            case ("gap", chat, partition, cause) if chat in followed:
                notice = gap(offset, offset + 5, cause, chat=chat, partition=partition)
                queue.add_gap(notice)
                hears_all.hear(notice)
            case ("toggle", chat):
                change(chat)
            case ("op", kind, chats) if not own:
                own |= {chat: [(0, Subscribed if chat in followed else Unsubscribed)] for chat in chats}
                queue.begin_op(chats)
            case ("op done",) if own and all(kind in {made for _, made in was} for was in own.values()):
                # An answer says what was so once; somebody else may have changed it since.
                answers += len(own)
                end_op([kind(chat=chat, exists=True, positions=dict.fromkeys(range(PARTITIONS), offset)) for chat in own])
            case ("op failed",):
                answers += 1
                end_op([Failed(code=503, message=f"{offset}", field=None)])
            case ("live",):
                queue.add_live()
                hears_all.hear(Live(cursor=None))
            case ("heartbeat",):
                queue.add_heartbeat()
                hears_all.hear(Heartbeat(cursor=None))
            case ("take", count):
                for _ in range(min(count, len(queue))):
                    told.hear(queue.pop(lambda: None))
        assert queue.waits == (len(queue) > 0)
        assert len(queue) <= len(CHATS) * (1 + PARTITIONS) + answers + 2
    end_op([])
    for _ in range(len(queue)):
        told.hear(queue.pop(lambda: None))
    assert told.followed == hears_all.followed == followed
    assert told.where() == hears_all.where()
    assert told.lost == hears_all.lost
    assert told.answers == hears_all.answers
    assert (told.live, told.heartbeat) == (hears_all.live, hears_all.heartbeat)


def test_a_user_whose_chats_others_change_without_end_has_few_notices_waiting() -> None:
    queue = NoticeQueue()
    for n in range(10_000):
        queue.add_subscription(subscribed(f"chat{n}"), 0)
        queue.add_subscription(unsubscribed(f"chat{n}"), 0)
        assert len(queue) <= 1
    queue.add_subscription(unsubscribed("known"), 0)
    for n in range(10_000):
        queue.add_subscription(subscribed("known", at=n), 0)
        queue.add_subscription(unsubscribed("known", at=n), 0)
        queue.add_gap(gap(n, n + 1, chat="known"))
        queue.add_heartbeat()
    assert len(queue) == 3


def test_a_change_whose_offset_is_not_known_is_said_where_it_is_another_one_than_the_op() -> None:
    queue = NoticeQueue()
    queue.begin_op(["a", "b"])
    queue.add_subscription(subscribed(at=5), -1)
    queue.add_subscription(unsubscribed("b"), -1)
    queue.add_answers([subscribed(at=5), subscribed("b")], {"a": 7, "b": 8})
    assert said(queue) == [subscribed(at=5), subscribed("b"), unsubscribed("b")]
