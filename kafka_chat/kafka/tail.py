"""Follows topics at their live end, and tells what becomes of them.

Three run beside each other: the Pollers' threads, which read; a task that looks up what was requested a moment ago; and a
task that looks once a second at everything else that is followed. The two tasks never have the same topic in hand, change
what they know only between two checkpoints, and after each await ask again whether the topic is still requested.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import trio
from confluent_kafka import KafkaError

from ..chat.loss_cause import LossCause
from ..chat.partition_key import PartitionKey
from ..chat.resume_cursor import NO_EPOCH
from ..errors import BrokerError
from ..nursery import open_tasks
from .followed_request import FollowedRequest, due
from .lookup import LogEnd
from .partition_repair import PartitionRepair
from .poller import Assignment, Poller, Round
from .poller_pool import Pollers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping

    from ..chat.names import ChatNames
    from ..delivery.ports import TailListener, TopicFacts
    from ..delivery.records.batch import Batch
    from ..settings.model import Limits
    from ..telemetry.metrics import Telemetry
    from .connect import ClientConfig
    from .lookup import KafkaLookup

WATCH_SECONDS = 1.0  # how often everything is looked at
CALLED_SECONDS = 0.25  # how soon again, at the earliest, where something calls for it
AGAIN_SECONDS = 0.05  # how soon a new request is looked up again that the watch does not look after yet
TOPICS_A_LOOK = 500  # describing so many takes 13 ms
LEADER_SECONDS = 1.0  # how long a topic that was made a moment ago may lack leaders before it is opened without them
ABSENT_SECONDS = 1.0  # how far two listings that lack a topic are apart before it is taken for absent
UNANSWERED_SECONDS = 15.0  # how long topics may be without an answer while other brokers give theirs; one is given up after 9
STUCK_SECONDS = 5.0  # how long the thread may take for a round


class KafkaTail:
    """Implements the port `Tail`.

    Attributes:
        last_round: when all was last well: a broker answered, and the thread went round; `trio.current_time()`.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        listener: TailListener,
        lookup: KafkaLookup,
        names: ChatNames,
        limits: Limits,
        telemetry: Telemetry,
        embedded: bool,
        consumers: int,
    ) -> None:
        self._listener = listener
        self._lookup = lookup
        self._names = names
        self._telemetry = telemetry
        self._log = config.logger
        # The embedded broker is one, and knows what it has; of several, one may not have heard of a topic yet.
        self._absent_seconds = 0.0 if embedded else ABSENT_SECONDS
        poller = partial(Poller, config, deliver=self._deliver, trouble=self._trouble, message_bytes=limits.message_bytes)
        self._poller = Pollers(poller, most=consumers)
        self._repair = PartitionRepair(
            lookup=lookup, listener=listener, telemetry=telemetry, log=config.logger, wanted=self._poller.wants, restart=self._restart
        )
        self._followed: dict[str, FollowedRequest] = {}
        self._unwatched: dict[FollowedRequest, None] = {}  # those that the watch does not look after yet
        self._requested = trio.Event()
        self._called = trio.Event()  # the watch is called before its time
        self._reason = ""  # what librdkafka said last of a connection: refused, not authenticated, …
        self._away: str | None = None  # why no broker answers
        self._unanswered: tuple[str, float] | None = None  # what got no answer though brokers are there, and since when
        self._unlooked: str | None = None  # why what was requested a moment ago could not be looked up
        self._rounds = 0
        self._went_round = self.last_round = trio.current_time()

    async def run_thread(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read what is followed, until cancelled; started once the thread is up."""
        await self._poller.run(task_status=task_status)

    @property
    def problem(self) -> str | None:
        """What is wrong, as a sentence, while brokers do not answer or the thread is stuck; else None."""
        if self._away:
            return self._away
        if self._unanswered and trio.current_time() - self._unanswered[1] > UNANSWERED_SECONDS:
            return self._unanswered[0]
        stuck = trio.current_time() - self._went_round
        return f"the tail has made no progress for {stuck:.0f} s" if stuck > STUCK_SECONDS else None

    @property
    def leaderless(self) -> Mapping[str, frozenset[int]]:
        """Topic -> partitions that have no leader now; topics without any are left out."""
        return {followed.topic: followed.leaderless for followed in self._followed.values() if followed.leaderless}

    def follow(self, topic: str) -> None:
        """Want a topic followed; see `Tail`."""
        if topic not in self._followed:
            followed = self._followed[topic] = FollowedRequest(topic, trio.current_time())
            self._unwatched[followed] = None
            self._requested.set()

    def unfollow(self, topic: str) -> None:
        """No longer want it; see `Tail`."""
        followed = self._followed.pop(topic, None)
        if followed is not None:
            self._unwatched.pop(followed, None)
            self._unassign(followed)

    # What the thread hands over

    def _deliver(self, taken: Round) -> None:
        for assignment, batches in taken.appended:
            if self._poller.wants(assignment):
                assignment.delivered = batches[-1].next
                assignment.epoch = next((batch.epochs[-1][1] for batch in reversed(batches) if batch.epochs), assignment.epoch)
                self._count_rejected(assignment.key, batches)
                self._listener.append(assignment.key, batches)
        for assignment, error in taken.broken:
            if self._poller.wants(assignment):
                self._repair.add(assignment)
                self._called.set()
                if error.code() not in (KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART):  # those are told by the repair
                    self._log.log(logging.WARNING, "%s cannot be read: %s", str(assignment.key), error.str())

    def _count_rejected(self, key: PartitionKey, batches: Iterable[Batch]) -> None:
        for batch in batches:
            for rejected in batch.rejected:
                self._telemetry.record_rejected(topic=key.topic, partition=key.partition, offset=rejected.offset, reason=rejected.reason)
            for offset, parts in batch.shortened:
                for what in parts:
                    self._telemetry.record_shortened(topic=key.topic, partition=key.partition, offset=offset, what=what)
            batch.forget_rejected()

    def _trouble(self, reason: str) -> None:
        self._reason = reason
        self._called.set()

    # The two tasks

    async def run_requests(self) -> None:
        """Look up what was requested a moment ago, until cancelled."""
        while True:
            await self._requested.wait()
            self._requested = trio.Event()
            fresh = list(self._unwatched)
            try:
                for first in range(0, len(fresh), TOPICS_A_LOOK):
                    await self._look(fresh[first : first + TOPICS_A_LOOK])
                self._unlooked = None
            except BrokerError as error:
                self._unlooked = str(error)
                self._called.set()  # the watch tells of it
            for followed in fresh:
                if followed.watched:
                    self._unwatched.pop(followed, None)
            if any(followed in self._unwatched for followed in fresh):
                await trio.sleep(AGAIN_SECONDS)
                self._requested.set()

    async def run_watch(self) -> None:
        """Look at everything else once a second, until cancelled."""
        while True:
            await self._watch()
            self._note_progress()
            await trio.sleep(CALLED_SECONDS)
            with trio.move_on_after(WATCH_SECONDS - CALLED_SECONDS):
                await self._called.wait()
            self._called = trio.Event()

    async def _watch(self) -> None:
        """Look at what is due, and report brokers that are away.

        They are away when none answers a ping, and back when all looks are answered: where one answers pings and topics
        cannot be asked for (a name that brokers go by does not resolve), a ping succeeds now and then, and fails now and then.
        """
        try:
            await self._look_around()
            failed = self._unlooked
            silent = None
        except BrokerError as error:
            failed = str(error)
            silent = await self._silence()
        if failed is None:
            self._unanswered = None
        else:
            self._unanswered = self._unanswered or (failed, trio.current_time())
        self._report_away(silent or (failed if self._away else None))

    async def _silence(self) -> str | None:
        """Return why no broker answers; None if one does, and only what was asked of others got no answer."""
        try:
            await self._lookup.ping()
        except BrokerError as error:
            return f"no broker answers: {self._reason or error}"
        self._reason = ""
        return None

    async def _look_around(self) -> None:
        groups: dict[tuple[bool, bool], list[FollowedRequest]] = {}
        for followed in self._followed.values():
            if followed.watched:
                key = followed.opened, followed.opened or self._listener.is_subscribed(followed.topic)
                groups.setdefault(key, []).append(followed)
        turn = {
            *chain.from_iterable(due(group, at_least=TOPICS_A_LOOK) for group in groups.values()),  # names made up keep no chat waiting
            *(self._followed[assignment.key.topic] for assignment in self._repair.broken),
        }
        if not turn:
            await self._lookup.ping()
            return
        looks = iter(turn)
        while look := list(islice(looks, TOPICS_A_LOOK)):
            await self._look(look)
        await self._repair.run(assignment for followed in turn for assignment in followed.assignments.values())

    def _report_away(self, reason: str | None) -> None:
        if reason and not self._away:
            self._telemetry.brokers_away(reason=reason)
        elif self._away and not reason:
            self._telemetry.brokers_back()
        self._away = reason

    def _note_progress(self) -> None:
        if self._poller.rounds != self._rounds:
            self._rounds = self._poller.rounds
            self._went_round = trio.current_time()
            if not self._away:
                self.last_round = self._went_round

    # What the lookups find

    async def _look(self, turn: Collection[FollowedRequest]) -> None:
        """Ask what has become of these topics, and tell.

        The identity is asked for before the offset: an offset of a later topic under an earlier one's id is then found out
        at the next look, as any other topic that was made anew.
        """
        asked = trio.current_time()
        facts = await self._lookup.describe([followed.topic for followed in turn])
        unopened: dict[FollowedRequest, list[PartitionKey]] = {}
        for followed in turn:
            followed.looked = asked
            if self._follows(followed):
                unopened[followed] = self._found(followed, facts.get(followed.topic), asked)
        ends = await self._lookup.log_ends([key for keys in unopened.values() for key in keys])
        for followed, keys in unopened.items():
            if keys and self._follows(followed):
                self._open_led(followed, keys, ends, asked)

    def _found(self, followed: FollowedRequest, facts: TopicFacts | None, asked: float) -> list[PartitionKey]:
        """Take note of what a broker says of a topic; return the partitions that are to begin at their end."""
        if facts is None:
            self._not_found(followed, asked)
            return []
        if facts.topic_id in followed.former:
            return []
        if followed.topic_id not in ("", facts.topic_id):
            followed.former.add(followed.topic_id)
            self._lose(followed, LossCause.RECREATED)
        positions = followed.resumable.pop(facts.topic_id, None)
        added = facts.partitions - followed.known if followed.topic_id or followed.absent else frozenset()
        followed.topic_id = facts.topic_id
        followed.known |= facts.partitions
        followed.leaderless = facts.leaderless
        followed.absent = False
        followed.absent_since = None
        if positions is not None:
            self._open(followed, positions, created=False)
            for assignment in followed.assignments.values():
                self._repair.add(assignment)  # nobody has looked meanwhile whether the log has lost its end
        elif added:
            self._open(followed, dict.fromkeys(sorted(added), LogEnd(0, NO_EPOCH)), created=True)
        return [PartitionKey(followed.topic, facts.topic_id, number) for number in sorted(facts.partitions - followed.assignments.keys())]

    def _not_found(self, followed: FollowedRequest, asked: float) -> None:
        if followed.absent_since is None:
            followed.absent_since = asked
        certain = asked - followed.absent_since >= self._absent_seconds
        if followed.topic_id:
            if certain:
                followed.resumable[followed.topic_id] = {
                    number: LogEnd(taken.delivered, taken.epoch) for number, taken in followed.assignments.items()
                }
                self._lose(followed, None)
            return
        followed.watched = True
        followed.absent = followed.absent or certain
        if not followed.missing:
            followed.missing = True
            self._listener.topic_missing(followed.topic)

    def _open_led(
        self, followed: FollowedRequest, keys: Collection[PartitionKey], ends: Mapping[PartitionKey, LogEnd], asked: float
    ) -> None:
        """Open what has a leader; a topic that was made a moment ago is given the time to have them all."""
        starts = {key.partition: ends[key] for key in keys if key in ends}
        late = asked - followed.requested >= LEADER_SECONDS
        if starts and (followed.opened or late or len(starts) == len(keys)):
            self._open(followed, starts, created=False)
        elif late:
            followed.watched = True

    def _open(self, followed: FollowedRequest, starts: Mapping[int, LogEnd], *, created: bool) -> None:
        """Tell the listener first, then have it read."""
        followed.watched = followed.opened = True
        followed.missing = False
        offsets = {number: start.offset for number, start in starts.items()}
        epochs = {number: start.epoch for number, start in starts.items() if start.epoch != NO_EPOCH}
        self._listener.topic_opened(followed.topic, followed.topic_id, offsets, created=created, epochs=epochs)
        if self._follows(followed):
            for number, start in starts.items():
                self._assign(followed, PartitionKey(followed.topic, followed.topic_id, number), start)

    def _lose(self, followed: FollowedRequest, cause: LossCause | None) -> None:
        """End reading a topic that is no more; what comes under its name is a new one."""
        topic_id, opened = followed.topic_id, followed.opened
        self._unassign(followed)
        followed.topic_id = ""
        followed.known = followed.leaderless = frozenset()
        followed.opened = False
        followed.missing = followed.absent = True
        if opened:
            self._listener.topic_lost(followed.topic, topic_id, cause)

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
async def open_tail(
    config: ClientConfig,
    *,
    listener: TailListener,
    lookup: KafkaLookup,
    names: ChatNames,
    limits: Limits,
    telemetry: Telemetry,
    embedded: bool,
    consumers: int = 1,
) -> AsyncIterator[KafkaTail]:
    """Follow topics at their live end for as long as the block lasts; Kafka may be away.

    Args:
        config: of the Consumers.
        listener: is told what is found.
        lookup: is asked what there is.
        names: chat <-> topic.
        limits: of the service.
        telemetry: its events.
        embedded: the broker is the embedded one.
        consumers: how many there may be, where many partitions are followed.

    Raises:
        ExceptionGroup: a bug in here; a broker that is away is none.
    """
    tail = KafkaTail(
        config,
        listener=listener,
        lookup=lookup,
        names=names,
        limits=limits,
        telemetry=telemetry,
        embedded=embedded,
        consumers=consumers,
    )
    async with open_tasks() as nursery:
        await nursery.start(tail.run_thread)
        nursery.start_soon(tail.run_requests)
        nursery.start_soon(tail.run_watch)
        yield tail
