"""The two minutes of docs/access.md: a secret, settings, a token, and who may do what with it."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from tests.support.deadlines import HANG_SECONDS
from tests.support.serving import child, spawned

COMMAND = str(Path(sys.executable).with_name("kafka-chat"))
DOCUMENT = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
SECRET = "c2VjcmV0IG9mIGF0IGxlYXN0IDMyIGJ5dGVz\n"


async def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    run = partial(subprocess.run, [COMMAND, *arguments], capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    return await trio.to_thread.run_sync(run)


async def test_a_token_reads_and_sends_what_it_may_as_whom_it_names_and_nothing_goes_without(tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET)
    settings = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)[0]
    (tmp_path / "config.yaml").write_text(settings.replace("secret_file: secret", f"secret_file: {tmp_path / 'secret'}"))
    made = await command("token", "--user", "ann", "--read", "room*", "--for", "1h", "--secret-file", str(tmp_path / "secret"))
    (tmp_path / "ann.token").write_text(made.stdout)
    shown = ("--token-file", str(tmp_path / "ann.token"))
    async with spawned("--embedded", "--config", str(tmp_path / "config.yaml")) as server:
        url = ("--url", server.url)
        async with child([COMMAND, "listen", "ann", "--chat", "room1", *shown, *url]) as listener:
            await listener.wait_for("connected to .* as ann")
            assert (await command("send", "global", "hello", "--as", "ann", *shown, *url)).returncode == 0
            await listener.wait_for("global ann: hello\n")
        refused: dict[str, subprocess.CompletedProcess[str]] = {}

        async def refuse(sentence: str, *arguments: str) -> None:
            refused[sentence] = await command(*arguments, *url)

        async with trio.open_nursery() as nursery:  # each takes a second to start
            nursery.start_soon(refuse, "the token gives no right to send to this chat (403)", "send", "room1", "x", "--as", "ann", *shown)
            nursery.start_soon(refuse, "the token is not this user's (403)", "send", "global", "x", "--as", "bob", *shown)
            nursery.start_soon(refuse, "a valid token is needed (401)", "send", "global", "x", "--as", "ann")
            nursery.start_soon(refuse, "a valid token is needed (4401)", "listen", "ann")
            nursery.start_soon(refuse, "the token is not this user's (4403)", "listen", "bob", *shown)
        logged = server.stderr
    for sentence, ended in refused.items():
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"kafka-chat: {sentence}\n")
    for part in made.stdout.strip().split("."):
        assert part not in logged
