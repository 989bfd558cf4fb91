"""A real nginx with the configuration that docs/operations.md has: only addresses are others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .deadlines import HANG_SECONDS
from .kafka_node import free_port
from .processes import end_process, last_lines, start_process, temporary_folder

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
_AROUND = """\
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


def documented(*, listen: int, upstreams: Sequence[int], prefix: str = "") -> str:
    """Return the documented configuration, for other addresses.

    Args:
        listen: the port, on loopback.
        upstreams: ports of the service.
        prefix: lines of a `server`, in front of its own.
    """
    (text,) = re.findall(r"^```nginx\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    text, listens = re.subn(r"listen 80;", f"listen 127.0.0.1:{listen};\n{prefix}", text)
    servers = "\n".join(f"    server 127.0.0.1:{port};" for port in upstreams)
    text, found = re.subn(r"(?:    server 10\.0\.0\.\d:8001;\n)+", f"{servers}\n", text)
    assert (listens, found) == (1, 1), "docs/operations.md has another configuration than this knows"
    return text


def nginx() -> str:
    """Return the executable.

    Raises:
        AssertionError: there is none.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert found is not None, "nginx is missing, and what clients get through it is a promise: apt-get install nginx"
    return found


@asynccontextmanager
async def open_nginx(*upstreams: int, prefix: str = "") -> AsyncIterator[str]:
    """Run nginx in front of the service for as long as the block lasts; yields `http://127.0.0.1:port`.

    Args:
        upstreams: ports of the service, which need not be there.
        prefix: lines of a `server`, in front of the documented ones.
    """
    port = free_port()
    with temporary_folder("kafka_chat-nginx-") as folder:
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "conf").write_text(
            _AROUND.format(folder=folder, user=user, documented=documented(listen=port, upstreams=upstreams, prefix=prefix))
        )
        with (folder / "log").open("wb") as log:
            process = start_process([nginx(), "-p", str(folder), "-c", "conf"], stdout=subprocess.DEVNULL, stderr=log)
            try:
                with trio.fail_after(HANG_SECONDS):
                    while not await _listens(port):
                        assert process.poll() is None, last_lines(folder / "log")
                        await trio.sleep(0.02)
                yield f"http://127.0.0.1:{port}"
            finally:
                end_process(process)


async def _listens(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True
