"""A real Chromium, driven over the DevTools protocol: pages that are opened, frozen, left, come back to and taken off the network."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from tests.support.processes import end_process, last_lines, start_process, temporary_folder

START_SECONDS = 60.0  # a busy machine; it takes one or two
ANSWER_SECONDS = 30.0
_LONGEST_ANSWER = 1 << 26  # bytes
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def chromium() -> str | None:
    """Return the executable; None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class PageError(AssertionError):
    """What was asked of the browser failed."""


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """Give a command of the DevTools protocol, and return its result."""
        return await self._browser.command(method, parameters, self._session)

    async def go_to(self, address: str) -> None:
        """Open an address, and wait until it is there."""
        answer = await self.command("Page.navigate", url=address)
        assert "errorText" not in answer, answer
        await self.until("document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page, awaited where it is a promise."""
        answer = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise PageError(f"{expression}: {json.dumps(answer['exceptionDetails'])[:2000]}")
        return answer["result"].get("value")

    async def until(self, expression: str, *, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until an expression is true in the page."""
        with trio.move_on_after(seconds):
            while not await self.evaluate(expression):  # noqa: ASYNC110 - a page tells nobody
                await trio.sleep(0.05)
            return
        raise PageError(f"{expression} has not become true within {seconds:g} s")

    async def freeze(self) -> None:
        """Have no task of the page run, as a browser does with a tab that nobody looks at."""
        await self.command("Page.setWebLifecycleState", state="frozen")

    async def thaw(self) -> None:
        """Let it go on."""
        await self.command("Page.setWebLifecycleState", state="active")

    async def set_offline(self, *, offline: bool) -> None:
        """Take the page off the network, or put it back."""
        await self.command("Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1)


class Browser:
    """The running browser, by its DevTools socket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = trio.Condition()

    async def command(self, method: str, parameters: dict[str, object], session: str | None = None) -> dict[str, Any]:
        """Give a command, and return its result."""
        number = next(self._numbers)
        command: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        with trio.fail_after(ANSWER_SECONDS):
            await self._socket.send_message(json.dumps(command))
            async with self._news:
                while number not in self._answers:
                    await self._news.wait()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Take the answers, for as long as the browser runs."""
        while True:
            try:
                message = json.loads(await self._socket.get_message())
            except ConnectionClosed:
                return
            if "id" in message:
                self._answers[message["id"]] = message
                async with self._news:
                    self._news.notify_all()

    @asynccontextmanager
    async def open_page(self) -> AsyncIterator[Page]:
        """Open a tab with a profile of its own while the block runs."""
        context = (await self.command("Target.createBrowserContext", {}))["browserContextId"]
        target = (await self.command("Target.createTarget", {"url": "about:blank", "browserContextId": context}))["targetId"]
        session = (await self.command("Target.attachToTarget", {"targetId": target, "flatten": True}))["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Network"):
            await page.command(f"{domain}.enable")
        yield page
        await self.command("Target.disposeBrowserContext", {"browserContextId": context})


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Browser]:
    """Run Chromium while the block runs; there has to be one."""
    executable = chromium()
    assert executable is not None
    with temporary_folder("chromium-") as folder:
        errors = folder / "stderr"
        port = folder / "profile" / "DevToolsActivePort"
        command = [executable, *_FLAGS, f"--user-data-dir={port.parent}", "about:blank"]
        with errors.open("wb") as stderr:
            process = start_process(command, stdout=stderr, stderr=stderr, env={**os.environ, "HOME": str(folder)})
        try:
            address = ""
            with trio.move_on_after(START_SECONDS):
                while process.poll() is None and len(address.splitlines()) < 2:
                    await trio.sleep(0.05)
                    address = port.read_text() if port.exists() else ""
            assert address, f"Chromium did not start (return code {process.poll()}):\n{last_lines(errors)}"
            number, path = address.splitlines()
            async with open_websocket_url(f"ws://127.0.0.1:{number}{path}", max_message_size=_LONGEST_ANSWER) as socket:
                browser = Browser(socket)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(browser.listen)
                    yield browser
                    nursery.cancel_scope.cancel()
        finally:
            end_process(process)
