"""Decides which connections read or write next: a few in each iteration of the loop, however many are ready.

trio wakes all tasks whose sockets are ready in the same iteration. When 12,000 clients are reset or send something at once, that
iteration takes seconds, and every other task waits for its end. Here connections take turns, and the number of turns per iteration
adapts to how long the last iterations took.
"""

from __future__ import annotations

import select
from collections import deque
from time import thread_time

import trio

from ...loop_sharing import TURN_SECONDS

MOST_IN_A_ROUND = 16  # connections per iteration: the end of one costs 0.2 ms, a request up to 1 ms
EVENTS = 512  # taken from the kernel at once, in 0.2 ms


def _flag(name: str) -> int:
    return int(getattr(select, name, 0))  # not used without epoll


_READ = _flag("EPOLLIN") | _flag("EPOLLRDHUP")
_WRITE = _flag("EPOLLOUT")
_BROKEN = _flag("EPOLLHUP") | _flag("EPOLLERR")  # the kernel always reports these
_ENDED = _flag("EPOLLRDHUP") | _BROKEN
_ONCE = _flag("EPOLLONESHOT")

_EPOLL: type[select.epoll] | None = getattr(select, "epoll", None)  # Linux

_Waiting = dict[int, trio.lowlevel.Task]  # by descriptor
_Queue = deque[tuple[_Waiting, int, trio.lowlevel.Task]]


class ReadySockets:
    """Schedules all connections of the process that wait for their sockets.

    Ready connections are in one of four queues: those from which nothing has come yet, those with something to read, those whose client
    is gone, and those that can write. Each queue has its share of an iteration, so a client that connects does not wait until 12,000
    ended connections are cleaned up. Writing is cheap: the queue of writers always has the full number of turns.

    While `run` is not running, and on systems without epoll, connections wait with trio.

    Args:
        kind: the epoll class; None on systems without it.
    """

    def __init__(self, kind: type[select.epoll] | None = _EPOLL) -> None:
        self._kind = kind
        self._epoll: select.epoll | None = None
        self._known: set[int] = set()  # descriptors registered with the kernel
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
        """Wait until there is something to read, or the end, and for the turn to read it.

        Args:
            socket: a connection's socket.
            is_new: whether nothing has come from it yet.

        Raises:
            trio.ClosedResourceError: it was closed.
        """
        if self._epoll is None:
            await trio.lowlevel.wait_readable(socket)
        else:
            await self._wait(self._epoll, socket, self._newcomers if is_new else self._readers)

    async def wait_writable(self, socket: trio.socket.SocketType) -> None:
        """Wait until the socket is writable or broken, and for the turn to write.

        Raises:
            trio.ClosedResourceError: it was closed.
        """
        if self._epoll is None:
            await trio.lowlevel.wait_writable(socket)
        else:
            await self._wait(self._epoll, socket, self._writers)

    def forget(self, descriptor: int) -> None:
        """Wake the tasks that wait for this descriptor: it is about to be closed, and may become another socket's."""
        self._known.discard(descriptor)
        for waiting in (self._newcomers, self._readers, self._writers):
            if descriptor in waiting:
                self._wake(waiting, descriptor)

    async def run(self) -> None:
        """Give turns until cancelled."""
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
                for descriptor in tuple(waiting):  # they find nothing to read, and then wait with trio
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
        except OSError as error:  # the kernel cannot register one more
            del waiting[descriptor]
            raise trio.BrokenResourceError from error

        def give_up(_: object) -> trio.lowlevel.Abort:
            # Later events of this descriptor find no task.
            del waiting[descriptor]
            self._in_queue.discard(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if socket.fileno() < 0:
            raise trio.ClosedResourceError

    def _ask(self, epoll: select.epoll, descriptor: int) -> None:
        """Register, for one event, for what tasks wait for at this descriptor, unless they are already in a queue."""
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
        """Move ready connections into the queues."""
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
        """Wake the first of each queue in turn, up to the number for this iteration; return how many."""
        woken = taking = 0
        while taking < MOST_IN_A_ROUND and self._wake_first(self._taking):
            taking += 1
        while woken < self._most and (self._new or self._speaking or self._gone):
            for queue in (self._new, self._speaking, self._gone):
                woken += self._wake_first(queue)
        return woken + taking

    def _wake_first(self, queue: _Queue) -> bool:
        """Wake the first task that still waits; return whether there was one."""
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
        """Halve the connections per iteration if the last iteration, with everything in it, was long; otherwise add one.

        Args:
            seconds: CPU time, which does not depend on what else the machine does.
        """
        self._most = max(1, self._most // 2) if seconds > TURN_SECONDS else min(MOST_IN_A_ROUND, self._most + 1)
