"""Opens `/docs` and `/redoc` in Chromium, wide, narrow and as a phone, with every other host out of reach, and uses them.

`make pages` runs it; CI does not. It leaves screenshots for a person to look at, and fails where a
page asks another host, says something on the console that is not expected, is wider than its window, where "try it out"
does not do what it says, or where a WebSocket example does not work as pasted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
SECONDS = 60  # for a page, on a busy machine
READY = {"docs": ".opblock", "redoc": "h1"}
EXPECTED = (
    "cdn.redoc.ly",  # ReDoc's logo, which the page's policy keeps from being asked for
    "status of 426",  # a WebSocket's address, tried without one
)
TRIED = {  # operation -> the status that "try it out" shows
    ("post", "/subscribing/{username}"): "200",
    ("get", "/subscribing/{username}"): "200",
    ("delete", "/subscribing/{username}"): "200",
    ("post", "/send-message/chat/{chat}"): "200",
    ("post", "/subscribing/{username}/{chat}"): "200",
    ("get", "/receive-message/client/{username}"): "426",
    ("get", "/health"): "200",
    ("get", "/ready"): "200",
    ("get", "/metrics"): "200",
}
RUN_EXAMPLE = """async (code) => {
    const said = [], log = console.log;
    console.log = (...what) => said.push(what);
    const socket = new Function(code + "; return socket")();
    await new Promise((opened, failed) => { socket.addEventListener("open", opened); socket.addEventListener("error", failed); });
    for (let tries = 0; tries < 100 && !said.length; tries++) {
        if (code.includes("receive-")) {
            await fetch("send-message/chat/global", {method: "POST", headers: {"Content-Type": "application/json"},
                body: JSON.stringify({sender: "bob", text: "hello"})});
        }
        await new Promise((passed) => setTimeout(passed, 100));
    }
    const closed = new Promise((passed) => socket.addEventListener("close", passed));
    socket.close();
    await closed;  // it says so, which is not to be taken for what the next one says
    console.log = log;
    return said.length ? JSON.stringify(said[0][0]) : "nothing";
}"""


def main() -> int:
    """Return 0 where all is well."""
    screenshots = Path(sys.argv[1])
    screenshots.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is needed: apt-get install chromium")
    kafka_chat = os.environ.get("KAFKA_CHAT", ".venv/bin/kafka-chat")
    problems: list[str] = []
    with subprocess.Popen([kafka_chat, "serve", "--embedded", "--port", "0"], stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            listening = next(line for line in service.stdout if "listening on" in line)
            url = re.search(r"http://[^\s,]+", listening)[0]  # type: ignore[index]
            with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
                check(playwright, chromium, profile, url, screenshots, problems)
        finally:
            service.terminate()
    sys.stdout.write("".join(f"{line}\n" for line in (*problems, f"{len(problems)} problems; screenshots are in {screenshots}")))
    return 1 if problems else 0


def check(playwright: Playwright, chromium: str, profile: str, url: str, screenshots: Path, problems: list[str]) -> None:
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=SECONDS * 1000, env={**os.environ, "HOME": profile})
    for name, window in {
        "wide": browser.new_context(viewport={"width": 1400, "height": 1000}),
        "narrow": browser.new_context(viewport={"width": 420, "height": 900}),
        "phone": browser.new_context(**playwright.devices["Pixel 7"]),
    }.items():
        for path in READY:
            page = opened(window, f"{url}/{path}", problems)
            page.screenshot(path=screenshots / f"{path}-{name}.png", full_page=True)
            width, needed = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
            if needed > width:
                problems.append(f"{path} needs {needed} pixels, {name} has {width}")
            page.close()
    use(browser, url, screenshots, problems)
    browser.close()


def opened(window: BrowserContext, address: str, problems: list[str]) -> Page:
    page = window.new_page()
    page.set_default_timeout(SECONDS * 1000)

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(expected in message.text for expected in EXPECTED):
            problems.append(f"{address} says: {message.text}")

    page.on("console", listen)
    page.on("pageerror", lambda error: problems.append(f"{address} fails: {error}"))
    page.on("response", lambda response: check_host(response.url, problems))
    page.goto(address)
    page.wait_for_selector(READY[urlsplit(address).path.strip("/")])
    page.wait_for_timeout(1000)  # for what a page does once it is there
    return page


def check_host(address: str, problems: list[str]) -> None:
    host = urlsplit(address).hostname
    if host not in (None, "127.0.0.1"):
        problems.append(f"{host} has answered")


def use(browser: Browser, url: str, screenshots: Path, problems: list[str]) -> None:
    """Try the operations out, and run the examples."""
    page = opened(browser.new_context(viewport={"width": 1400, "height": 1000}), f"{url}/docs", problems)
    for (method, path), status in TRIED.items():
        block = page.locator(f".opblock-{method}", has=page.locator(f'[data-path="{path}"]')).first
        block.locator(".opblock-summary-control").click()
        block.locator("button.try-out__btn").click()
        block.locator("button.execute").click()
        found = block.locator(".live-responses-table tbody td.response-col_status").first.inner_text().split()[0]
        if found != status:
            problems.append(f"trying {method} {path} out gives {found}, not {status}")
        block.screenshot(path=screenshots / f"try-{method}{re.sub(r'[{}/]+', '-', path).rstrip('-')}.png")
        block.locator(".opblock-summary-control").click()
    paths = page.evaluate("fetch('openapi.json').then((answer) => answer.json())")["paths"]
    described = [operation["description"] for path in paths.values() for operation in path.values()]
    examples = [code for text in described for code in re.findall(r"```js\n(.*?)```", text, re.DOTALL) if "new WebSocket" in code]
    if len(examples) != 4:
        problems.append(f"{len(examples)} WebSockets have an example, not 4")
    for code in examples:
        said = page.evaluate(RUN_EXAMPLE, code)
        if not re.match(r'\{"(sender|username|topic)"', said):
            problems.append(f"the example gives {said}:\n{code}")


if __name__ == "__main__":
    sys.exit(main())
