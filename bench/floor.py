"""The floor under a fan-out, writing one message to many sockets and nothing else: `python -m bench.floor [CLIENTS]`.

CPU seconds per 100,000 writes of 180 bytes to loopback sockets which a second process drains: `os.write` in a loop of
Python's, and the same in C where there is a compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 200
DATA = b"x" * 180
SOURCE = "#include <unistd.h>\nvoid go(int *f, int n, char *d, int l) { for (int i = 0; i < n; i++) if (write(f[i], d, l) < 0) {} }\n"


def drain(address: tuple[str, int], count: int) -> None:
    """Connect, and read until the first connection ends."""
    connections = [socket.create_connection(address) for _ in range(count)]
    epoll = select.epoll()
    for connection in connections:
        connection.setblocking(False)  # noqa: FBT003 - it takes no keyword
        epoll.register(connection.fileno(), select.EPOLLIN)
    while True:
        for descriptor, _ in epoll.poll():
            if not os.read(descriptor, 65536):
                return


def measure(name: str, count: int, write_to_all: Callable[[], None]) -> None:
    """Print what a write costs."""
    for _ in range(2):
        before = _cpu()
        for _ in range(ROUNDS):
            write_to_all()
            time.sleep(0.01)
        print(f"{name}: {(_cpu() - before) / (ROUNDS * count) * 1e5:.3f} s per 100,000 writes")


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    if (child := os.fork()) == 0:
        with contextlib.suppress(OSError):
            drain(listener.getsockname(), count)
        os._exit(0)
    connections = [listener.accept()[0] for _ in range(count)]
    for connection in connections:
        connection.setblocking(False)  # noqa: FBT003 - it takes no keyword
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    descriptors = [connection.fileno() for connection in connections]

    def python() -> None:
        for descriptor in descriptors:
            os.write(descriptor, DATA)

    measure("os.write", count, python)
    if compiler := shutil.which("cc"):
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "write.c", Path(folder) / "write.so"
            source.write_text(SOURCE)
            subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
            go, array = ctypes.CDLL(str(library)).go, (ctypes.c_int * count)(*descriptors)
            measure("write in C", count, lambda: go(array, count, DATA, len(DATA)))
    for connection in connections:
        connection.close()
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
