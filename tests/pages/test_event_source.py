"""`/events` with a browser's own `EventSource`: disconnected again and again, it loses nothing and shows nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.pages.chromium import Browser, Page
from tests.pages.page_server import open_site
from tests.pages.written import Written
from tests.support.chats import Chats
from tests.support.relay import Relay
from tests.support.serving import Server, serving, until_ready

pytestmark = pytest.mark.deadline(120)

PAGE = """<!doctype html>
<title>A page with an EventSource</title>
<link rel="icon" href="data:,">
<script>
const told = [];
const happened = [];
const source = new EventSource("{service}/receive-message/client/zo%C3%AB/events{query}");
source.onmessage = ({{ data }}) => {{
  const {{ chat, text, meta }} = JSON.parse(data);
  told.push([chat, meta.partition, meta.offset, text]);
}};
for (const name of ["hello", "live", "gap", "reconnect", "end", "error"]) source.addEventListener(name, () => happened.push(name));
source.addEventListener("end", () => source.close());
</script>
"""
TIMES_LIVE = "happened.filter((name) => name === 'live').length"


@asynccontextmanager
async def opened(browser: Browser, relay: Relay, query: str = "") -> AsyncIterator[Page]:
    """Open the page; the stream has begun."""
    async with open_site({"/": PAGE.format(service=relay.url, query=query)}) as site, browser.open_page() as page:
        await page.go_to(f"{site}/")
        await page.until("happened.includes('hello')")
        yield page


async def test_a_page_of_any_origin_gets_messages(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as page:
        written.write(40)
        await written.check_all(page)
        assert await page.evaluate("happened") == ["hello", "live"]


async def test_a_text_that_looks_like_an_event_forges_none(browser: Browser, relay: Relay, written: Written):
    texts = ["\nid: 9\n\ndata: {}\n\n", "\r\nevent: end\r\ndata: x\r\n\r\n", "\r\r", "\u2028\u2029\x00\x0b\x0c\x85", ":", "\ufeff"]
    async with opened(browser, relay) as page:
        for text in texts:
            written.write_text(text)
        await written.check(page)
        relay.cut()
        written.write(8)
        await written.check_all(page)
        assert "end" not in await page.evaluate("happened")


async def test_a_page_that_was_cut_off_many_times_has_missed_nothing(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as page:
        for times in range(1, 4):
            written.write(20)
            await page.until(f"{TIMES_LIVE} === {times}")
            relay.cut()
            written.write(20)
            await page.until(f"{TIMES_LIVE} === {times + 1}")
        await written.check_all(page)


async def test_a_page_that_was_off_the_network_has_missed_nothing(browser: Browser, relay: Relay, written: Written):
    async with opened(browser, relay) as page:
        written.write(4)
        await written.check(page)
        relay.break_off()
        await page.set_offline(offline=True)
        written.write(40)
        relay.cut()
        await page.until("happened.filter((name) => name === 'error').length > 1")  # it has tried again meanwhile
        relay.mend()
        await page.set_offline(offline=False)
        await written.check_all(page)


async def test_a_page_goes_on_with_another_instance_when_its_own_restarts(
    browser: Browser, relay: Relay, server: Server, written: Written, chats: Chats
):
    async with opened(browser, relay) as page, serving(chats.settings_for(written.broker), check_leaks=False) as another:
        await until_ready(another)
        written.write(20)
        relay.service = another.url
        server.shut_down()
        written.write(20)
        await server.ended()
        written.write(20)
        await written.check_all(page)
        assert "reconnect" in await page.evaluate("happened")


async def test_a_stream_that_is_done_is_closed_by_the_page_and_does_not_begin_again(browser: Browser, relay: Relay, written: Written):
    written.write(8)
    async with opened(browser, relay, "?from=earliest&until=-0s") as page:
        await page.until("happened.includes('end')")
        await written.check(page)
        assert await page.evaluate("source.readyState") == 2
        assert await page.evaluate("happened") == ["hello", "end"]
