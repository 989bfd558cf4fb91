"""Follows topics at their live end, and reports what happens to them.

Three things run concurrently: the Pollers' threads, which read; tasks that look up new requests; and a task (the watch) that
looks up all other followed topics once a second. No two tasks look up the same topic, except one that a look has opened and
still holds while it waits for another leader. They change state only between two checkpoints, and after each await they check
that the topic is still requested, and the same. `topic_state` has the states of a topic and their transitions.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import trio
from confluent_kafka import KafkaError

from ..changes import Changes
from ..chat.loss_cause import LossCause
from ..chat.partition_key import PartitionKey
from ..chat.resume_cursor import NO_EPOCH
from ..errors import BrokerError
from ..nursery import open_tasks
from .each_leader import ask_each_leader
from .followed_request import TOPICS_A_LOOK, FollowedRequest, due_of_each_kind
from .lookup import LogEnd
from .not_shown import tell_not_shown
from .open_transactions import HELD_SECONDS, OpenTransactions
from .partition_repair import PartitionRepair
from .poller import Assignment, Poller, Round
from .poller_pool import Pollers
from .reachability import Reachability
from .topic_state import TopicAction, TopicEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from ..chat.names import ChatNames
    from ..delivery.ports import TailListener, TopicFacts
    from ..settings.model import Limits
    from ..telemetry.metrics import Telemetry
    from .cluster import Cluster
    from .connect import ClientConfig
    from .lookup import KafkaLookup

WATCH_SECONDS = 1.0  # how often everything is looked up
CALLED_SECONDS = 0.25  # the shortest interval, when something asks for an earlier look
AGAIN_SECONDS = 0.05  # how soon a new request that the watch does not handle yet is looked up again
LOOKS = 8  # concurrent looks for new requests: one that hangs does not delay the others
LEADER_SECONDS = 1.0  # how long a new topic may lack leaders before it is opened without them
ABSENT_SECONDS = 1.0  # how far apart two listings without a topic are before it counts as absent
STUCK_SECONDS = 5.0  # how long a thread may take for a round


class KafkaTail:
    """Implements the port `Tail`.

    Attributes:
        last_round: when brokers answered and all threads had made a round, last; `trio.current_time()`.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        listener: TailListener,
        lookup: KafkaLookup,
        cluster: Cluster,
        names: ChatNames,
        limits: Limits,
        telemetry: Telemetry,
        consumers: int = 1,
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        """Follow nothing yet; `open_tail` runs it.

        Args:
            config: configures the Consumers.
            listener: is notified of what happens to topics.
            lookup: asks the brokers.
            cluster: identifies their cluster; when another replaces it, everything that is followed is lost.
            names: chat <-> topic.
            limits: those of the settings.
            telemetry: records its events.
            consumers: the maximum number of Consumers.
            held_seconds: how long a transaction may block a partition before that is reported.
        """
        self._listener = listener
        self._lookup = lookup
        self._cluster = cluster
        cluster.on_replaced.append(self._lose_all)
        self._names = names
        self._telemetry = telemetry
        self._log = config.logger
        # The embedded broker knows all its topics; one of several brokers may not know a new topic yet.
        self._absent_seconds = 0.0 if config.embedded else ABSENT_SECONDS
        self._called = Changes()  # the next watch runs early
        poller = partial(Poller, config, deliver=self._deliver, trouble=self._called.note, message_bytes=limits.message_bytes)
        self._poller = Pollers(poller, most=consumers)
        self._repair = PartitionRepair(
            lookup=lookup, listener=listener, telemetry=telemetry, log=config.logger, wanted=self._poller.wants, restart=self._restart
        )
        self._transactions = OpenTransactions(lookup, wanted=self._poller.wants, seconds=held_seconds)
        self._followed: dict[str, FollowedRequest] = {}
        self._unwatched: dict[FollowedRequest, None] = {}  # requests that the watch does not handle yet
        self._in_look: set[FollowedRequest] = set()  # the ones that are being looked up
        self._requested = Changes()
        self._brokers = Reachability(lookup, telemetry)
        self._unlooked: str | None = None  # why new requests could not be looked up
        self._rounds = 0
        self._went_round = self.last_round = trio.current_time()

    async def run_thread(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read followed topics, until cancelled; started once the thread is up."""
        await self._poller.run(task_status=task_status)

    @property
    def problem(self) -> str | None:
        """What is wrong, as a sentence, while brokers do not answer or a thread is stuck; otherwise None."""
        if (problem := self._brokers.problem) is not None:
            return problem
        self._note_progress()  # a look may take long
        stuck = trio.current_time() - self._went_round
        # Otherwise it has made a round since the last watch; watches take longer while brokers are away.
        stands = self._poller.rounds == self._rounds
        return f"the tail has made no progress for {stuck:.0f} s" if stands and stuck > STUCK_SECONDS else None

    def partitions(self, topic: str) -> int:
        """Return how many partitions a followed topic has; see `Tail`."""
        followed = self._followed.get(topic)
        return 0 if followed is None else max(followed.known, default=-1) + 1

    @property
    def leaderless(self) -> Mapping[str, frozenset[int]]:
        """Topic -> partitions that have no leader now; topics without any are left out."""
        return {followed.topic: followed.leaderless for followed in self._followed.values() if followed.leaderless}

    @property
    def held(self) -> Mapping[PartitionKey, int]:
        """Partition that an open transaction has blocked for long -> the offset where."""
        return self._transactions.held

    def follow(self, topic: str) -> None:
        """Follow a topic; see `Tail`."""
        if topic not in self._followed:
            followed = self._followed[topic] = FollowedRequest(topic, trio.current_time())
            self._unwatched[followed] = None
            self._requested.note()

    def unfollow(self, topic: str) -> None:
        """Stop following it; see `Tail`."""
        followed = self._followed.pop(topic, None)
        if followed is not None:
            self._unwatched.pop(followed, None)
            self._unassign(followed)

    # What the threads hand over

    def _deliver(self, taken: Round) -> None:
        for assignment, batches in taken.appended:
            if self._poller.wants(assignment):
                assignment.delivered = batches[-1].next
                assignment.epoch = next((batch.epochs[-1][1] for batch in reversed(batches) if batch.epochs), assignment.epoch)
                tell_not_shown(self._telemetry, assignment.key, batches)
                self._listener.append(assignment.key, batches)
        for assignment in taken.replaced:
            if self._poller.wants(assignment):  # look up the current topic; if it is the wanted one, read it again
                self._repair.add(assignment)
                self._called.note()
        for assignment, error in taken.broken:
            if self._poller.wants(assignment):
                self._repair.add(assignment)
                self._called.note()
                if error.code() not in (KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART):  # `PartitionRepair` reports those
                    self._log.log(logging.WARNING, "%s cannot be read: %s", str(assignment.key), error.str())

    # The two tasks

    async def run_requests(self) -> None:
        """Look up new requests, until cancelled."""
        free = trio.Semaphore(LOOKS)
        async with trio.open_nursery() as looks:
            version = 0
            while True:
                await self._requested.wait_beyond(version)
                await free.acquire()  # requests that come meanwhile share the look
                version = self._requested.version
                fresh = [followed for followed in self._unwatched if followed not in self._in_look]
                self._in_look.update(fresh)
                looks.start_soon(self._look_at_fresh, fresh, free)

    async def _look_at_fresh(self, fresh: Sequence[FollowedRequest], free: trio.Semaphore) -> None:
        """Look up new requests once, and again until the watch handles them."""
        try:
            for first in range(0, len(fresh), TOPICS_A_LOOK):
                await self._look(fresh[first : first + TOPICS_A_LOOK])
            self._unlooked = None
        except BrokerError as error:
            self._unlooked = str(error)
            self._called.note()  # the watch reports it
        free.release()
        for followed in fresh:
            if followed.watched:
                self._unwatched.pop(followed, None)
        again = any(followed in self._unwatched for followed in fresh)
        if again:
            await trio.sleep(AGAIN_SECONDS)
        self._in_look.difference_update(fresh)
        if again:
            self._requested.note()

    async def run_watch(self) -> None:
        """Look up all other followed topics once a second, until cancelled."""
        while True:
            version = self._called.version
            await self._watch()
            self._note_progress()
            await trio.sleep(CALLED_SECONDS)
            with trio.move_on_after(WATCH_SECONDS - CALLED_SECONDS):
                await self._called.wait_beyond(version)

    async def _watch(self) -> None:
        """Look up the topics that are due, and report brokers that are away."""
        turn = {
            *due_of_each_kind(self._followed.values(), self._listener.is_subscribed),
            *(self._followed[assignment.key.topic] for assignment in self._repair.broken),
        }
        try:
            await self._look_around(turn)
        except BrokerError as error:
            await self._brokers.looked(str(error), ask=True)
        else:
            await self._brokers.looked(self._unlooked, ask=not turn)

    async def _look_around(self, turn: Collection[FollowedRequest]) -> None:
        looks = iter(turn)
        while look := list(islice(looks, TOPICS_A_LOOK)):
            await self._look(look)
        looked_at = [assignment for followed in turn for assignment in followed.assignments.values()]
        await self._repair.run(looked_at)
        await self._transactions.run(looked_at)

    def _note_progress(self) -> None:
        if self._poller.rounds != self._rounds:
            self._rounds = self._poller.rounds
            self._went_round = trio.current_time()
            if not self._brokers.away:
                self.last_round = self._went_round

    # What the lookups find

    async def _look(self, turn: Collection[FollowedRequest]) -> None:
        """Look up these topics, and report what has happened to them.

        The id is requested before the offset: if the topic is recreated in between, the offset is the later topic's, and the
        next look finds the replacement as usual.
        """
        asked = trio.current_time()
        facts = await self._cluster.describe({followed.topic: followed.topic_id for followed in turn})
        unopened: dict[FollowedRequest, list[PartitionKey]] = {}
        for followed in turn:
            followed.looked = asked
            if self._follows(followed):
                unopened[followed] = self._found(followed, facts.get(followed.topic), asked)
        ends: dict[PartitionKey, LogEnd] = {}

        def open_told(told: Mapping[PartitionKey, LogEnd]) -> None:
            ends.update(told)
            for topic in {key.topic for key in told}:
                followed = self._followed.get(topic)
                if followed is not None and followed in unopened:
                    self._open_led(followed, unopened[followed], ends)

        try:
            wanted = [key for keys in unopened.values() for key in keys]
            await ask_each_leader(self._lookup, wanted, self._lookup.log_ends, told=open_told)
        finally:
            for followed, keys in unopened.items():
                if keys and self._follows(followed) and asked - followed.requested >= LEADER_SECONDS:
                    followed.watched = True
                    self._open_led(followed, keys, ends, in_part=True)

    def _found(self, followed: FollowedRequest, facts: TopicFacts | None, asked: float) -> list[PartitionKey]:
        """Note a broker's facts of a topic; return the partitions to open at their end."""
        if facts is None or facts.topic_id in followed.former:
            self._not_found(followed, asked)
            return []
        if followed.topic_id not in ("", facts.topic_id):
            followed.former.add(followed.topic_id)
            self._lose(followed, TopicEvent.REPLACED)
        may_be_new = followed.take(TopicEvent.LISTED) is TopicAction.OPEN_NEW
        positions = followed.resumable.pop(facts.topic_id, None)
        new = facts.partitions - followed.known if may_be_new else frozenset()
        followed.topic_id = facts.topic_id
        followed.known |= facts.partitions
        followed.leaderless = facts.leaderless
        followed.absent_since = None
        if positions:
            self._open(followed, positions, created=False)
            for assignment in followed.assignments.values():
                self._repair.add(assignment)  # the log may have lost its end in the meantime
        elif new and positions is None:
            self._open(followed, dict.fromkeys(sorted(new), LogEnd(0, NO_EPOCH)), created=True)
        return [PartitionKey(followed.topic, facts.topic_id, number) for number in sorted(facts.partitions - followed.assignments.keys())]

    def _not_found(self, followed: FollowedRequest, asked: float) -> None:
        if followed.absent_since is None:
            followed.absent_since = asked
        if asked - followed.absent_since >= self._absent_seconds:
            followed.former.clear()  # otherwise the last answer came from a broker with old metadata, and the id stays former
            self._lose(followed, TopicEvent.GONE)
        elif followed.take(TopicEvent.UNLISTED) is TopicAction.TELL_MISSING:
            self._listener.topic_missing(followed.topic)

    def _open_led(
        self, followed: FollowedRequest, keys: Collection[PartitionKey], ends: Mapping[PartitionKey, LogEnd], *, in_part: bool = False
    ) -> None:
        """Open partitions whose end is known; for a new topic only all of them together, unless a part is enough.

        A new topic gets time to elect all leaders, so that a client does not start with only some of its partitions.
        """
        # A look that waits for another leader may hold a topic that the watch has found replaced.
        there = [key for key in keys if key in ends and key.topic_id == followed.topic_id]
        starts = {key.partition: ends[key] for key in there if key.partition not in followed.assignments}
        if starts and (followed.opened or in_part or len(starts) == len(keys)):
            self._open(followed, starts, created=False)

    def _open(self, followed: FollowedRequest, starts: Mapping[int, LogEnd], *, created: bool) -> None:
        """Notify the listener first, then start reading."""
        followed.take(TopicEvent.TOLD_START)
        offsets = {number: start.offset for number, start in starts.items()}
        epochs = {number: start.epoch for number, start in starts.items() if start.epoch != NO_EPOCH}
        self._listener.topic_opened(followed.topic, followed.topic_id, offsets, created=created, epochs=epochs)
        if self._follows(followed):
            for number, start in starts.items():
                self._assign(followed, PartitionKey(followed.topic, followed.topic_id, number), start)

    def _lose(self, followed: FollowedRequest, event: TopicEvent) -> None:
        """Stop reading a topic that no longer exists; a later one of its name is new."""
        topic_id = followed.topic_id
        if topic_id:
            positions = {number: LogEnd(taken.delivered, taken.epoch) for number, taken in followed.assignments.items()}
            followed.resumable[topic_id] = positions
        self._unassign(followed)
        followed.topic_id = ""
        followed.known = followed.leaderless = frozenset()
        action = followed.take(event)
        if action is TopicAction.TELL_LOST:
            for number, left in followed.resumable[topic_id].items():
                self._telemetry.position_lost(
                    topic=followed.topic, partition=number, asked=left.offset, first_left=0, cause=LossCause.RECREATED
                )
            self._listener.topic_lost(followed.topic, topic_id, LossCause.RECREATED if event is TopicEvent.REPLACED else None)
        elif action is TopicAction.TELL_MISSING:
            self._listener.topic_missing(followed.topic)

    def _lose_all(self) -> None:
        """Lose all followed topics: the brokers are another cluster, whose topics are new."""
        for followed in self._followed.values():
            if followed.topic_id:
                self._lose(followed, TopicEvent.REPLACED)
            followed.former.clear()
            followed.resumable.clear()
        self._called.note()

    def _follows(self, followed: FollowedRequest) -> bool:
        return self._followed.get(followed.topic) is followed

    def _assign(self, followed: FollowedRequest, key: PartitionKey, start: LogEnd) -> None:
        assignment = Assignment(key, self._names.chat(key.topic), start.offset, start.epoch)
        followed.assignments[key.partition] = assignment
        self._poller.assign(assignment)

    def _restart(self, assignment: Assignment, start: LogEnd) -> None:
        self._assign(self._followed[assignment.key.topic], assignment.key, start)

    def _unassign(self, followed: FollowedRequest) -> None:
        for assignment in followed.assignments.values():
            self._poller.unassign(assignment)
        followed.assignments = {}


@asynccontextmanager
async def open_tail(tail: KafkaTail) -> AsyncIterator[KafkaTail]:
    """Run a Tail while the block runs; the brokers may be away.

    Raises:
        ExceptionGroup: a bug in here; absent brokers raise nothing.
    """
    async with open_tasks() as nursery:
        await nursery.start(tail.run_thread)
        nursery.start_soon(tail.run_requests)
        nursery.start_soon(tail.run_watch)
        yield tail
