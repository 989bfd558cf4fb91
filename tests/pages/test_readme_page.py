"""The page that the README shows works as it is pasted."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pages.chromium import Browser
from tests.pages.page_server import open_site
from tests.support.serving import spawned, until_ready

README = (Path(__file__).parents[2] / "README.md").read_text()


async def test_the_page_shows_what_it_sends_and_goes_on_when_it_is_loaded_again(browser: Browser):
    (example,) = re.findall(r"```html\n(.*?)```", README, re.DOTALL)
    shown = "[...document.querySelectorAll('#messages li')].map((line) => line.textContent)"
    async with spawned("--embedded") as server:
        await until_ready(server)
        page = f"<!doctype html><title>chat</title>{example.replace('http://127.0.0.1:8001', server.url)}"
        async with open_site({"/": page}) as site, browser.open_page() as tab:
            await tab.go_to(site + "/")
            await tab.until(f"{shown}.length > 0")
            assert await tab.evaluate(shown) == ["room1 ann: hello from a page"]
            await tab.command("Page.reload")
            await tab.until(f"{shown}.length > 0")  # it sends again; what it had shown does not come again
            assert await tab.evaluate(shown) == ["room1 ann: hello from a page"]
