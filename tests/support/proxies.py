"""Real proxies, nginx and HAProxy, with the configurations of docs/operations.md and other addresses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import trio

from .deadlines import HANG_SECONDS
from .kafka_node import free_port
from .processes import end_process, last_lines, start_process, temporary_folder

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
_AROUND_NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/pid;
error_log stderr info;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{documented}
}}
"""


class OpenProxy(Protocol):
    """Runs a proxy in front of the service while the block runs; yields `http://127.0.0.1:port`."""

    def __call__(self, *upstreams: int) -> AbstractAsyncContextManager[str]:
        """Run it.

        Args:
            upstreams: ports of the service, which need not be there.
        """


@asynccontextmanager
async def open_nginx(*upstreams: int, prefix: str = "") -> AsyncIterator[str]:
    """Run nginx (`OpenProxy`); `prefix` are lines of its `server`, before the documented ones."""
    port = free_port()
    text = _replaced(_documented("nginx"), r"listen 80;", f"listen 127.0.0.1:{port};\n{prefix}")
    text = _replaced(text, r"(?:    server 10\.0\.0\.\d:8001;\n)+", "".join(f"    server 127.0.0.1:{one};\n" for one in upstreams))
    with temporary_folder("kafka_chat-nginx-") as folder:
        user = "user root;" if os.geteuid() == 0 else ""  # else its worker cannot write where it is told to
        configuration = _AROUND_NGINX.format(folder=folder, user=user, documented=text)
        async with _running(lambda conf: [_program("nginx"), "-p", str(folder), "-c", conf], configuration, folder, port) as url:
            yield url


@asynccontextmanager
async def open_haproxy(*upstreams: int) -> AsyncIterator[str]:
    """Run HAProxy (`OpenProxy`)."""
    port = free_port()
    text = _replaced(_documented("haproxy"), r"bind :80$", f"bind 127.0.0.1:{port}")
    names = "abcdef"[: len(upstreams)]
    servers = "".join(f"    server {name} 127.0.0.1:{one}\n" for name, one in zip(names, upstreams, strict=True))
    text = _replaced(text, r"(?:    server \w 10\.0\.0\.\d:8001\n)+", servers)
    text = _replaced(
        text, r"(?:    server \w 10\.0\.0\.\d:8001 track kafka_chat/\w\n)+", re.sub(r" (\w) (.*)", r" \1 \2 track kafka_chat/\1", servers)
    )
    with temporary_folder("kafka_chat-haproxy-") as folder:
        async with _running(lambda conf: [_program("haproxy"), "-db", "-f", conf], text, folder, port) as url:
            yield url


@asynccontextmanager
async def _running(command: Callable[[str], Sequence[str]], configuration: str, folder: Path, port: int) -> AsyncIterator[str]:
    conf = folder / "conf"
    conf.write_text(configuration)
    with (folder / "log").open("wb") as log:
        process = start_process(command(str(conf)), stdout=subprocess.DEVNULL, stderr=log)
        try:
            with trio.fail_after(HANG_SECONDS):
                while not await _listens(port):
                    assert process.poll() is None, last_lines(folder / "log")
                    await trio.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            end_process(process)


def _documented(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


def _replaced(text: str, pattern: str, by: str) -> str:
    replaced, count = re.subn(pattern, lambda _: by, text, flags=re.MULTILINE)
    assert count == 1, f"docs/operations.md has another configuration than this knows: {count} times {pattern}"
    return replaced


def _program(name: str) -> str:
    """Return the executable.

    Raises:
        AssertionError: there is none.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert found is not None, f"{name} is missing, and what clients get through it is a promise: apt-get install {name}"
    return found


async def _listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True
