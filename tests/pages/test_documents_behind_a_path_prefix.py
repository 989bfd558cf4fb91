"""Behind a proxy that has the service below a path, and does not say so, the documents, what is tried out in them, and clients work."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import AsyncIterator

import pytest
import trio

from tests.pages.chromium import Browser, Page
from tests.pages.page_server import open_site
from tests.pages.test_kafka_chat_js import LIVE
from tests.pages.test_kafka_chat_js import PAGE as CLIENT_PAGE
from tests.pages.written import Written
from tests.support.proxies import open_nginx
from tests.support.serving import Server

PREFIX = """
    location /some/chat/ {
        proxy_pass http://kafka_chat/;
        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
    }
"""
BLOCK = """[...document.querySelectorAll(".opblock-{method}")].find((block) => block.querySelector('[data-path="{path}"]'))"""
TRIED = {  # operation -> the end of the address that is asked, and of what is shown of the answer
    ("get", "/health"): ("/some/chat/health", "200"),
    ("post", "/subscribing/{username}"): ("/some/chat/subscribing/ada?topic=kafka.chat.room1", "200"),
    ("get", "/subscribing/{username}"): ("/some/chat/subscribing/ada", "200"),
}


@pytest.fixture
async def address(server: Server, written: Written) -> AsyncIterator[str]:
    """Where the service is, with the prefix."""
    async with open_nginx(server.port, prefix=PREFIX) as proxy:
        yield f"{proxy}/some/chat"


async def keep_screenshot(page: Page, name: str) -> None:
    """Keep what the page looks like, where somebody wants to look: `PAGES=folder`."""
    if folder := os.environ.get("PAGES"):
        await trio.Path(folder, name).write_bytes(b64decode((await page.command("Page.captureScreenshot"))["data"]))


async def clicked(page: Page, block: str, button: str) -> None:
    found = f"{block}.querySelector({button!r})"
    await page.until(f"{found} !== null && {found} !== undefined")
    await page.evaluate(f"{found}.click()")


async def test_what_is_tried_out_in_the_documents_or_pasted_from_them_reaches_the_service(browser: Browser, address: str, written: Written):
    async with browser.open_page() as page:
        await page.go_to(f"{address}/docs")
        await page.until("document.querySelector('.opblock') !== null")
        for (method, path), (asked, status) in TRIED.items():
            block = BLOCK.replace("{method}", method).replace("{path}", path)
            await clicked(page, block, ".opblock-summary-control")
            await clicked(page, block, "button.try-out__btn")
            await clicked(page, block, "button.execute")
            shown = f"{block}.querySelector('.live-responses-table tbody td.response-col_status')"
            await page.until(f"Boolean({shown})")
            assert (await page.evaluate(f"{shown}.innerText")).split()[0] == status
            assert asked in await page.evaluate(f"{block}.querySelector('.request-url').innerText")
            await page.evaluate(f"{block}.scrollIntoView()")
            await keep_screenshot(page, f"docs-{method}.png")
        await page.evaluate("globalThis.said = []; console.log = (...what) => said.push(what[0])")
        paths = json.loads(await page.evaluate("fetch('openapi.json').then((answer) => answer.text())"))["paths"]
        for path in ("/receive-message/client/{username}", "/receive-message/client/{username}/events"):
            code = paths[path]["get"]["description"].partition("```js\n")[2].partition("```")[0]
            variable = code.split()[1]
            await page.evaluate(f"said.length = 0; {code.replace('const ', 'var ')}")
            await page.until(f"{variable}.readyState === 1")
            written.write(1)
            await page.until(f"said.at(-1)?.text === '{len(written.records) - 1}'")


async def test_the_documents_are_no_wider_than_a_phone_whatever_is_opened(browser: Browser, address: str):
    async with browser.open_page() as page:
        await page.command("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=False)
        await page.go_to(f"{address}/redoc")
        await page.until("document.querySelector('h1') !== null")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.go_to(f"{address}/docs")
        await page.until("document.querySelector('.opblock') !== null")
        await page.evaluate("[...document.querySelectorAll('.opblock-summary-control')].forEach((summary) => summary.click())")
        await page.until("[...document.querySelectorAll('.opblock')].every((block) => block.querySelector('.responses-table'))")
        await keep_screenshot(page, "docs-360.png")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_redoc_shows_the_document_and_where_the_service_is(browser: Browser, address: str):
    async with browser.open_page() as page:
        await page.go_to(f"{address}/redoc")
        await page.until("document.querySelector('h1') !== null && document.body.innerText.includes('/subscribing/{username}')")
        await keep_screenshot(page, "redoc.png")
        shown = await page.evaluate("document.body.textContent")
        assert f"{address}/health" in shown
        assert "/./" not in shown
        (download,) = await page.evaluate("[...document.querySelectorAll('a[download]')].map((link) => link.href)")
        assert download == f"{address}/openapi.json"


async def test_the_client_for_browsers_finds_the_service_where_it_was_loaded_from(browser: Browser, address: str, written: Written):
    async with open_site({"/": CLIENT_PAGE.format(service=address, username="ada")}) as site, browser.open_page() as page:
        await page.go_to(f"{site}/")
        await page.until(LIVE)
        written.write(4)
        await written.check_all(page)
