"""Event streams through a real nginx, configured as documented: a browser and the libraries of npm survive a restart of the service."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.pages.chromium import Browser
from tests.pages.npm_packages import npm_packages
from tests.pages.page_server import open_site
from tests.pages.test_event_source import PAGE
from tests.pages.written import Written
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import until
from tests.support.chats import Chats
from tests.support.http_client import http
from tests.support.kafka_node import free_port
from tests.support.node import node
from tests.support.processes import end_process, last_lines, start_process, temporary_folder
from tests.support.proxies import open_nginx
from tests.support.serving import serving, until_ready

LIBRARIES = ("eventsource", "eventsource-client", "fetch-event-source")
EVENTS = "/receive-message/client/zo%C3%AB/events"


class Libraries:
    """What the libraries have told so far."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def told(self) -> dict[str, list[tuple[str, str]]]:
        """Of each library names and data of its events."""
        found = defaultdict(list)
        *lines, _ = self._output.read_text().split("\n")
        for line in lines:
            library, name, data = json.loads(line)
            found[library].append((name, data))
        return found

    def all_told(self, name: str) -> bool:
        return all(name in dict(self.told()[library]) for library in LIBRARIES)

    def texts(self, library: str) -> list[str]:
        return [json.loads(data)["text"] for name, data in self.told()[library] if name == "message"]


@asynccontextmanager
async def libraries(address: str) -> AsyncIterator[Libraries]:
    packages = await trio.to_thread.run_sync(npm_packages)
    command = [node(), str(Path(__file__).with_name("event_libraries.mjs")), str(packages), address]
    with temporary_folder("kafka_chat-libraries-") as folder, (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = start_process(command, stdout=out, stderr=err)
        try:
            yield Libraries(folder / "out")
            assert process.poll() is None, last_lines(folder / "err")
        finally:
            end_process(process, kill=True)


async def test_a_browser_and_each_library_come_back_after_a_restart_and_have_missed_nothing(
    browser: Browser, embedded: EmbeddedBroker, chats: Chats, written: Written
):
    """The service is away until each of them has been answered by nginx alone, which is for as long as they stay away after a cut."""
    port = free_port()
    settings = chats.settings_for(embedded, server__port=port)
    async with open_nginx(port) as proxy:
        page_text = {"/": PAGE.format(service=proxy, query="").replace('"reconnect",', '"reconnect", "unavailable",')}
        async with serving(settings, check_leaks=False) as server:
            await until_ready(server)
            async with libraries(proxy + EVENTS) as others, open_site(page_text) as site, browser.open_page() as page:
                await page.go_to(f"{site}/")
                await page.until("happened.includes('live')")
                await until(lambda: others.all_told("live"))
                written.write(8)
                await written.check(page)
                server.shut_down()
                await server.ended()
                written.write(8)
                await page.until("happened.includes('unavailable')")
                await until(lambda: others.all_told("unavailable"))
                assert (await http(proxy, "GET", EVENTS)).status == 502  # who does not name event streams is told by the status
                assert (await http(proxy, "GET", "/health", headers={"accept": "text/event-stream"})).status == 502
                written.write(8)
                async with serving(settings, check_leaks=False) as again:
                    await until_ready(again)
                    await written.check_all(page)
                    for library in LIBRARIES:
                        await until(lambda library=library: len(others.texts(library)) >= len(written.records))  # type: ignore[misc]
                        assert sorted(others.texts(library), key=int) == [str(number) for number in range(len(written.records))]
                        assert "over" not in dict(others.told()[library])
