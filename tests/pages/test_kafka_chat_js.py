"""`/kafka-chat.js` in a real page: whatever happens to the page or the network, nothing is lost and nothing comes twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.pages.chromium import Browser, Page
from tests.pages.page_server import open_site
from tests.pages.written import Written
from tests.support.chats import Chats
from tests.support.relay import Relay
from tests.support.serving import Server, serving, until_ready

pytestmark = pytest.mark.deadline(120)

USERNAME = "zoë & co"
PAGE = """<!doctype html>
<title>A page with the client</title>
<link rel="icon" href="data:,">
<script type="module">
import {{ KafkaChat }} from "{service}/kafka-chat.js";
window.told = JSON.parse(sessionStorage.getItem("told") ?? "[]");
addEventListener("pagehide", () => sessionStorage.setItem("told", JSON.stringify(told)));
window.happened = [];
window.chat = new KafkaChat(null, "{username}", {{
  heartbeat: 10,
  load: () => sessionStorage.getItem("cursor"),
  save: (cursor) => sessionStorage.setItem("cursor", cursor),
  onMessage: ({{ chat, text, meta: {{ partition, offset }} }}) => told.push([chat, partition, offset, text]),
  onGap: (gap) => told.push(gap),
  onState: (state) => happened.push(state),
}});
for (const name of ["freeze", "resume"]) document.addEventListener(name, () => happened.push(name));
for (const name of ["online", "offline"]) addEventListener(name, () => happened.push(name));
addEventListener("pageshow", ({{ persisted }}) => happened.push(persisted ? "kept" : "new"));
</script>
"""
OTHER = "<!doctype html><title>Another page</title><link rel='icon' href='data:,'>"
LIVE = "window.chat?.state === 'live'"


@asynccontextmanager
async def opened(browser: Browser, relay: Relay) -> AsyncIterator[tuple[Page, str]]:
    """Open the page, with a live client; also yields the address of another page."""
    pages = {"/": PAGE.format(service=relay.url, username=USERNAME), "/other": OTHER}
    async with open_site(pages) as site, browser.open_page() as page:
        await page.go_to(f"{site}/")
        await page.until(LIVE)
        yield page, f"{site}/other"


async def test_a_page_of_any_origin_gets_messages_and_subscribes_and_sends(browser: Browser, relay: Relay, written: Written, chats: Chats):
    written.broker.create_topic(chats.topic("room1"), 4)
    async with opened(browser, relay) as (page, _):
        written.write(8)
        await written.check_all(page)
        assert (await page.evaluate("chat.subscribe('room1')"))["exists"] is True
        assert await page.evaluate("chat.chats") == ["global", "room1"]
        sent = await page.evaluate("chat.send('room1', 'hello', {tag: 'blue'})")
        await page.until(f"told.length === {len(written.records) + 1}")
        assert await page.evaluate("told.at(-1)") == ["room1", sent["partition"], sent["offset"], "hello"]
        assert (await page.evaluate("chat.unsubscribe('room1')"))["chat"] == "room1"
        assert await page.evaluate("chat.unsubscribe('global').catch(({code}) => code)") == 409
        assert await page.evaluate("chat.close()") == {"code": 1000, "reason": ""}


async def test_a_frozen_page_has_missed_nothing_when_it_goes_on(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as (page, _):
        written.write(4)
        await written.check(page)
        await page.freeze()
        written.write(40)  # the browser keeps these, unread
        relay.cut()
        written.write(40)
        await page.thaw()
        await written.check_all(page)
        happened = await page.evaluate("happened")
        assert happened.index("freeze") < happened.index("resume")
        assert "waiting" in happened


async def test_a_page_that_was_left_and_come_back_to_has_missed_nothing(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as (page, other):
        written.write(4)
        await written.check(page)
        await page.evaluate("window.mark = 1")
        await page.go_to(other)
        written.write(40)
        await page.evaluate("history.back()")
        await page.until("window.mark === 1")  # it is the same page, out of the back-forward cache
        await written.check_all(page)
        assert "paused" in await page.evaluate("happened")
        assert "kept" in await page.evaluate("happened")


async def test_a_page_that_is_loaded_again_goes_on_where_it_was(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as (page, _):
        written.write(8)
        await written.check(page)
        await page.evaluate("window.mark = 1")
        await page.command("Page.reload")
        written.write(40)  # some before the page goes, some while nobody is there
        await page.until(f"!window.mark && {LIVE}")
        await written.check_all(page)


async def test_a_page_that_was_off_the_network_has_missed_nothing(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as (page, _):
        written.write(4)
        await written.check(page)
        relay.break_off()
        await page.set_offline(offline=True)
        written.write(40)
        await page.until("happened.includes('waiting')")
        relay.mend()
        await page.set_offline(offline=False)
        await written.check_all(page)
        happened = await page.evaluate("happened")
        assert happened.index("offline") < happened.index("waiting") < happened.index("online")


async def test_a_page_that_has_changed_its_network_has_missed_nothing(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as (page, _):
        relay.break_off()
        written.write(20)
        await page.set_offline(offline=True)
        await page.set_offline(offline=False)  # before anybody has noticed that the connection is gone
        relay.mend()
        written.write(20)
        await written.check_all(page)


async def test_a_page_goes_on_with_another_instance_when_its_own_restarts(
    browser: Browser, relay: Relay, server: Server, written: Written, chats: Chats
):
    async with opened(browser, relay) as (page, _), serving(chats.settings_for(written.broker), check_leaks=False) as another:
        await until_ready(another)
        written.write(20)
        relay.service = another.url
        server.shut_down()
        written.write(20)
        await server.ended()
        written.write(20)
        await written.check_all(page)


async def test_a_page_keeps_its_place_through_many_cuts(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as (page, _):
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                for _ in range(4):
                    await page.until(LIVE)
                    relay.cut()
                    await page.until("chat.state !== 'live'")

            nursery.start_soon(cut)
            for _ in range(60):
                written.write(2)
                await trio.sleep(0.01)
        await written.check_all(page)
