"""The console in a real browser: three widths, light and dark, keyboard and spoken names."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.web.test_server import Shown
from worker.settings import Web
from worker.web.server import WebServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_S = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


class Tab:
    """A page of a browser, over its DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        """What the page's console and its content security policy said."""

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json(timeout=START_S)
            if answer.get("method") == "Log.entryAdded":
                self.complaints.append(answer["params"]["entry"]["text"])
            if answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(answer["params"]))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    async def value(self, expression: str) -> Any:
        result = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        async with asyncio.timeout(START_S):
            while not await self.value(expression):  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.1)

    async def show(self, address: str, width: int = 1280) -> None:
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        await self.ask("Page.navigate", url=address)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Tab]:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={directory}"),
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(START_S):
            said = b""
            while (found := re.search(rb"DevTools listening on ws://([^/]+)/", said)) is None:
                line = await process.stderr.readline()
                assert line, said
                said += line
        root = f"http://{found.group(1).decode()}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{root}/json/list") as answer:
                (page, *_) = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await tab.ask(f"{domain}.enable")
                yield tab
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def console(directory: Path) -> AsyncIterator[tuple[Tab, WebServer, str]]:
    server = WebServer(Shown(), Web(port=0))
    await server.start()
    try:
        async with browser(directory) as tab:
            yield tab, server, f"http://127.0.0.1:{server.port}/"
    finally:
        await server.stop()


async def test_the_console_fits_phones_tablets_and_desks(tmp_path: Path) -> None:
    """No page wider than its window: tables scroll in their own cards, nothing is cut off."""
    async with console(tmp_path) as (tab, _, address):
        for width in (360, 820, 1600):
            await tab.show(address, width)
            assert await tab.value("innerWidth") == width
            assert await tab.value("document.documentElement.scrollWidth") <= width
            assert await tab.value("document.querySelectorAll('.tile').length") > 8
            small = "Math.min(...[...document.querySelectorAll('td')].map(e => "
            assert await tab.value(f"{small}parseFloat(getComputedStyle(e).fontSize)))") >= 12
        assert tab.complaints == []


async def test_the_page_renews_itself_and_says_when_it_is_old(tmp_path: Path) -> None:
    """Its own policy lets its script run; a worker that is gone is seen to be gone."""
    async with console(tmp_path) as (tab, server, address):
        await tab.show(address)
        await tab.until("document.getElementById('tiles').dataset.was !== undefined")
        assert await tab.value("getComputedStyle(document.getElementById('stale')).display") == (
            "none"
        )
        assert tab.complaints == []
        await server.stop()
        await tab.until("document.body.classList.contains('stale')")


async def test_the_console_follows_the_colours_somebody_chose(tmp_path: Path) -> None:
    """Light and dark, with text that stands out from its ground by 4.5 to 1 at least."""
    contrast = """(() => {
      const lum = c => {
        const p = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
          .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2];
      };
      const card = lum(getComputedStyle(document.querySelector('.card')).backgroundColor);
      return Math.min(...['.dim', 'th', '.ok', '.unsafe', '.undecided', 'td', '.warn']
        .flatMap(s => [...document.querySelectorAll('main ' + s)])
        .map(e => lum(getComputedStyle(e).color))
        .map(l => (Math.max(l, card) + 0.05) / (Math.min(l, card) + 0.05)));
    })()"""
    async with console(tmp_path) as (tab, _, address):
        grounds = set()
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            await tab.ask("Emulation.setEmulatedMedia", features=media)
            await tab.show(address)
            grounds.add(await tab.value("getComputedStyle(document.body).backgroundColor"))
            assert await tab.value(contrast) >= 4.5, scheme
        assert len(grounds) == 2


async def test_an_event_is_found_by_keyboard_and_everything_has_a_name(tmp_path: Path) -> None:
    """Tab, type, Enter; and whoever listens hears what each field, button and picture is."""
    async with console(tmp_path) as (tab, _, address):
        await tab.show(address)
        nodes = (await tab.ask("Accessibility.getFullAXTree"))["nodes"]
        nameless = [
            node["role"]["value"]
            for node in nodes
            if not node.get("ignored")
            and node["role"]["value"] in ("textbox", "button", "image", "link", "heading")
            and not node.get("name", {}).get("value")
        ]
        assert nameless == []

        async def press(key: str, text: str = "") -> None:
            for kind in ("keyDown", "keyUp"):
                await tab.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text)

        async with asyncio.timeout(START_S):
            while await tab.value("document.activeElement.name") != "event":
                await press("Tab")
        await tab.ask("Input.insertText", text="evt-000001")
        await press("Enter", "\r")
        await tab.until("location.search === '?event=evt-000001'")
        assert tab.complaints == []
