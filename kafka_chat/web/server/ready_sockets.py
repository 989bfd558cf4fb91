"""Decides which connections read or write next: a few in each round of the loop, however many are ready.

trio wakes everybody whose socket is ready in one and the same round. Where 12,000 clients are reset in an instant, or all speak in
one, that round takes seconds, and every other task waits for its end. Here connections take turns, and a round has as many of them
as the last rounds had time for.
"""

from __future__ import annotations

import select
from collections import deque
from time import thread_time

import trio

from ...loop_sharing import TURN_SECONDS

MOST_IN_A_ROUND = 16  # connections: the end of one costs 0.2 ms, a request up to 1 ms
EVENTS = 512  # taken from the kernel at once, in 0.2 ms


def _flag(name: str) -> int:
    return int(getattr(select, name, 0))  # where there is no epoll, none of them is used


_READ = _flag("EPOLLIN") | _flag("EPOLLRDHUP")
_WRITE = _flag("EPOLLOUT")
_BROKEN = _flag("EPOLLHUP") | _flag("EPOLLERR")  # the kernel tells these to everybody who waits
_ENDED = _flag("EPOLLRDHUP") | _BROKEN
_ONCE = _flag("EPOLLONESHOT")

_EPOLL: type[select.epoll] | None = getattr(select, "epoll", None)  # Linux

_Waiting = dict[int, trio.lowlevel.Task]  # by descriptor
_Queue = deque[tuple[_Waiting, int, trio.lowlevel.Task]]


class ReadySockets:
    """All connections of the process that wait for their sockets.

    Connections that are ready stand in one of four queues: those that nothing has come from yet, those that say something, those whose
    client is gone, and those that take what they are owed. Each queue has its share of a round, so a client that connects does not wait
    until the 12,000 that have left are tidied away. To write is cheap: as many do in each round as ever may.

    While `run` does not run, and where the system has no epoll, connections wait with trio.

    Args:
        kind: of what tells which sockets are ready.
    """

    def __init__(self, kind: type[select.epoll] | None = _EPOLL) -> None:
        self._kind = kind
        self._epoll: select.epoll | None = None
        self._known: set[int] = set()  # descriptors that the kernel has been asked about
        self._newcomers: _Waiting = {}
        self._readers: _Waiting = {}
        self._writers: _Waiting = {}
        self._in_queue: set[trio.lowlevel.Task] = set()
        self._new: _Queue = deque()
        self._speaking: _Queue = deque()
        self._gone: _Queue = deque()
        self._taking: _Queue = deque()
        self._most = MOST_IN_A_ROUND

    async def wait_readable(self, socket: trio.socket.SocketType, *, is_new: bool = False) -> None:
        """Wait until there is something to read, or the end; and for the turn to do so.

        Args:
            socket: of a connection.
            is_new: nothing has come from it yet.

        Raises:
            trio.ClosedResourceError: it was closed.
        """
        if self._epoll is None:
            await trio.lowlevel.wait_readable(socket)
        else:
            await self._wait(self._epoll, socket, self._newcomers if is_new else self._readers)

    async def wait_writable(self, socket: trio.socket.SocketType) -> None:
        """Wait until the socket takes something, or is at its end; and for the turn to write.

        Raises:
            trio.ClosedResourceError: it was closed.
        """
        if self._epoll is None:
            await trio.lowlevel.wait_writable(socket)
        else:
            await self._wait(self._epoll, socket, self._writers)

    def forget(self, descriptor: int) -> None:
        """Free the tasks that wait for this descriptor: it is about to be closed, and will be another socket's."""
        self._known.discard(descriptor)
        for waiting in (self._newcomers, self._readers, self._writers):
            if descriptor in waiting:
                self._wake(waiting, descriptor)

    async def run(self) -> None:
        """Give turns for as long as this is not cancelled."""
        if self._kind is None:
            await trio.sleep_forever()
            return
        self._epoll = self._kind()
        try:
            while True:
                began = thread_time()
                self._take_events(self._epoll)
                if self._wake_some():
                    await trio.lowlevel.checkpoint()
                    self._fit(thread_time() - began)
                else:
                    await trio.lowlevel.wait_readable(self._epoll)
        finally:
            self._epoll.close()
            self._epoll = None
            self._known.clear()
            for waiting in (self._newcomers, self._readers, self._writers):
                for descriptor in tuple(waiting):  # they find nothing to read, and wait with trio
                    self._wake(waiting, descriptor)

    async def _wait(self, epoll: select.epoll, socket: trio.socket.SocketType, waiting: _Waiting) -> None:
        descriptor = socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError
        if descriptor in waiting:
            raise trio.BusyResourceError("another task waits for this socket")
        task = waiting[descriptor] = trio.lowlevel.current_task()
        try:
            self._ask(epoll, descriptor)
        except OSError as error:  # the system has no room for one more
            del waiting[descriptor]
            raise trio.BrokenResourceError from error

        def give_up(_: object) -> trio.lowlevel.Abort:
            # What the kernel tells later on finds nobody.
            del waiting[descriptor]
            self._in_queue.discard(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if socket.fileno() < 0:
            raise trio.ClosedResourceError

    def _ask(self, epoll: select.epoll, descriptor: int) -> None:
        """Have the kernel tell, once, of what is waited for at this descriptor, and does not stand in a queue."""
        wanted = 0
        for waiting in (self._newcomers, self._readers, self._writers):
            task = waiting.get(descriptor)
            if task is not None and task not in self._in_queue:
                wanted |= _WRITE if waiting is self._writers else _READ
        if not wanted:
            return
        if descriptor in self._known:
            epoll.modify(descriptor, wanted | _ONCE)
        else:
            epoll.register(descriptor, wanted | _ONCE)
            self._known.add(descriptor)

    def _take_events(self, epoll: select.epoll) -> None:
        """Put connections in the queues."""
        for descriptor, events in epoll.poll(0, EVENTS):
            if events & (_READ | _BROKEN):
                gone = events & _ENDED
                self._enqueue(self._gone if gone else self._new, self._newcomers, descriptor)
                self._enqueue(self._gone if gone else self._speaking, self._readers, descriptor)
            if events & (_WRITE | _BROKEN):
                self._enqueue(self._gone if events & _BROKEN else self._taking, self._writers, descriptor)
            self._ask(epoll, descriptor)

    def _enqueue(self, queue: _Queue, waiting: _Waiting, descriptor: int) -> None:
        task = waiting.get(descriptor)
        if task is not None and task not in self._in_queue:
            self._in_queue.add(task)
            queue.append((waiting, descriptor, task))

    def _wake_some(self) -> int:
        """Wake the first of each queue in turn, until a round has enough; return how many."""
        woken = taking = 0
        while taking < MOST_IN_A_ROUND and self._wake_first(self._taking):
            taking += 1
        while woken < self._most and (self._new or self._speaking or self._gone):
            for queue in (self._new, self._speaking, self._gone):
                woken += self._wake_first(queue)
        return woken + taking

    def _wake_first(self, queue: _Queue) -> bool:
        """Wake the first one that still waits; return whether there was one."""
        while queue:
            waiting, descriptor, task = queue.popleft()
            if waiting.get(descriptor) is task and task in self._in_queue:
                self._wake(waiting, descriptor)
                return True
        return False

    def _wake(self, waiting: _Waiting, descriptor: int) -> None:
        task = waiting.pop(descriptor)
        self._in_queue.discard(task)
        trio.lowlevel.reschedule(task)

    def _fit(self, seconds: float) -> None:
        """Take fewer connections into the next round if the last one, with all else that was in it, was long; else one more.

        Args:
            seconds: of CPU: how long the machine had something else to do says nothing about the round.
        """
        self._most = max(1, self._most // 2) if seconds > TURN_SECONDS else min(MOST_IN_A_ROUND, self._most + 1)
