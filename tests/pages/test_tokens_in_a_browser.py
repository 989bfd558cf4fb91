"""In a browser a token is pasted into the documents, offered as a subprotocol, or sent as a cookie of the same site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.behaviour.test_tokens_open_what_they_cover import guarded
from tests.pages.chromium import Browser, Page
from tests.support.brokers import EmbeddedBroker
from tests.support.calls import running
from tests.support.chats import Chats
from tests.support.issuer import secret_token

BLOCK = """[...document.querySelectorAll(".opblock-get")].find((block) => block.querySelector('[data-path="/subscribing/{username}"]'))"""
STATUS = f"{BLOCK}.querySelector('.live-responses-table tbody td.response-col_status')"
PASTE = """(() => {
    const input = document.querySelector(".auth-container input");
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, %s);
    input.dispatchEvent(new Event("input", {bubbles: true}));
})()"""
# Opens a WebSocket with these subprotocols, and says how it went.
OPENED = """new Promise((say) => {
    const socket = new WebSocket(new URL("receive-message/client/ada", location).href.replace("http", "ws"), %s);
    socket.onopen = () => { setTimeout(() => socket.close(4000), 1000); };
    socket.onclose = (event) => say(`${socket.protocol} ${event.code}`);
})"""


async def click(page: Page, found: str) -> None:
    await page.until(f"Boolean({found})")
    await page.evaluate(f"{found}.click()")


async def open_documents(page: Page, url: str) -> None:
    await page.go_to(f"{url}/docs")
    await page.until(f"document.querySelector('.opblock') !== null && Boolean({BLOCK})")


async def tried(page: Page) -> str:
    """Try the list of subscriptions out, and return the status."""
    await click(page, f"{BLOCK}.querySelector('.opblock-summary-control')")
    await click(page, f"{BLOCK}.querySelector('button.try-out__btn')")
    await click(page, f"{BLOCK}.querySelector('button.execute')")
    await page.until(f"Boolean({STATUS})")
    return str(await page.evaluate(f"{STATUS}.innerText")).split()[0]


@pytest.mark.promise("p-authorize")
async def test_a_token_that_is_pasted_into_the_documents_is_used_and_not_kept(
    browser: Browser, embedded: EmbeddedBroker, chats: Chats, tmp_path: Path
):
    async with running(guarded(embedded, chats, tmp_path), check_leaks=False) as server, browser.open_page() as page:
        await open_documents(page, server.url)
        assert await tried(page) == "401"
        await open_documents(page, server.url)
        await click(page, "document.querySelector('.auth-wrapper button.authorize')")
        await page.until("document.querySelector('.auth-container input') !== null")
        await page.evaluate(PASTE % json.dumps(secret_token("ada")))
        await click(page, "document.querySelector('.auth-btn-wrapper button.authorize')")
        await click(page, "document.querySelector('.auth-btn-wrapper button.btn-done')")
        assert await tried(page) == "200"
        kept = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert "eyJ" not in kept
        await open_documents(page, server.url)
        assert await tried(page) == "401"


async def test_a_page_offers_its_token_as_a_subprotocol(browser: Browser, embedded: EmbeddedBroker, chats: Chats, tmp_path: Path):
    async with running(guarded(embedded, chats, tmp_path), check_leaks=False) as server, browser.open_page() as page:
        await page.go_to(f"{server.url}/docs")
        good = f"bearer.{secret_token('ada')}"
        for name, token, how in (
            ("kafka-chat.v1", good, "kafka-chat.v1 4000"),
            ("kafka-chat.plain", good, "kafka-chat.plain 4000"),
            ("kafka-chat.v1", "bearer.a.b.c", "kafka-chat.v1 4401"),
            ("kafka-chat.v1", f"bearer.{secret_token('bob')}", "kafka-chat.v1 4403"),
            ("kafka-chat.plain", "bearer.a.b.c", " 1006"),  # whose status a browser does not tell
        ):
            assert await page.evaluate(OPENED % json.dumps([name, token])) == how


async def test_a_page_of_the_services_own_origin_is_known_by_its_cookie(
    browser: Browser, embedded: EmbeddedBroker, chats: Chats, tmp_path: Path
):
    settings = guarded(embedded, chats, tmp_path, auth__cookie="chat", access__origins=["https://chat.example"])
    async with running(settings, check_leaks=False) as server, browser.open_page() as page:
        await page.go_to(f"{server.url}/docs")
        ask = "fetch('/subscribing/ada').then((answer) => answer.status)"
        assert await page.evaluate(ask) == 401
        await page.evaluate(f"document.cookie = 'chat={secret_token('ada')}'")
        assert await page.evaluate(ask) == 200
        events = "new Promise((say) => { const s = new EventSource('/receive-message/client/ada/events'); %s })"
        say = "s.onerror = () => say('refused'); s.addEventListener('hello', () => { s.close(); say('hello'); });"
        assert await page.evaluate(events % say) == "hello"
