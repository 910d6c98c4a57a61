"""The web server: pages for whoever may have them, and no way to hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.support.views import busy_view
from worker.errors import ConfigurationError
from worker.settings import Web
from worker.web.console import ConsoleView
from worker.web.health import Health
from worker.web.server import WebServer, answers_to

IDLE_S = 0.3
MOST = 5


class Shown:
    """A worker that is well."""

    def __init__(self) -> None:
        self.wanted = ""

    def health(self) -> tuple[Health, Health]:
        view = busy_view()
        return view.live, view.ready

    def console(self, event_id: str = "") -> ConsoleView:
        self.wanted = event_id
        return busy_view()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"moderation_ready 1\n", "text/plain; version=0.0.4; charset=utf-8"


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Shown, WebServer]]:
    worker = Shown()
    server = WebServer(worker, Web(port=0), idle_s=IDLE_S, most=MOST)
    await server.start()
    yield worker, server
    await server.stop()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def get(server: WebServer, path: str, **headers: str) -> tuple[int, str, str]:
    address = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as answer:
        return answer.status, answer.content_type, await answer.text()


async def test_every_page_is_served(served: tuple[Shown, WebServer]) -> None:
    """Probes, metrics, the console and its data, under the paths that charts and people know."""
    worker, server = served
    for path, kind, says in (
        ("/healthz", "application/json", "checks"),
        ("/readyz", "application/json", "checks"),
        ("/metrics", "text/plain", "moderation_ready"),
        ("/", "text/html", "moderation-worker"),
        ("/console.json?event=e-7", "application/json", "sections"),
    ):
        status, content_type, body = await get(server, path)
        assert (status, content_type) == (200, kind)
        assert says in body
    assert worker.wanted == "e-7"
    assert (await get(server, "/nothing"))[0] == 404


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("127.0.0.1:6066", True),
        ("10.1.2.3", True),
        ("[::1]:6066", True),
        ("localhost:6066", True),
        ("console.localhost", True),
        ("chosen.example.com", True),
        ("CHOSEN.example.com.:80", True),
        ("evil.example.com", False),
        ("127.0.0.1.evil.example.com", False),
        ("localhost.evil.example.com:6066", False),
        ("", True),
    ],
)
def test_the_console_answers_to_names_that_somebody_chose(host: str, answers: bool) -> None:
    """A page elsewhere can point its own name at this address and read what the console shows."""
    assert answers_to(host, Web(hosts=("chosen.example.com",))) is answers


def test_any_name_can_be_allowed() -> None:
    """Behind a proxy that checks names itself."""
    assert answers_to("whatever.example.com", Web(hosts=("*",)))


async def test_a_foreign_name_gets_no_console_and_still_its_probes(
    served: tuple[Shown, WebServer],
) -> None:
    """Prometheus and load balancers ask under service names."""
    _, server = served
    for path, status in (("/", 421), ("/console.json", 421), ("/healthz", 200), ("/metrics", 200)):
        assert (await get(server, path, Host="evil.example.com"))[0] == status


async def test_half_open_connections_are_closed_and_bounded(
    served: tuple[Shown, WebServer],
) -> None:
    """Six hundred of them stayed for ever; probes must get through whatever is open."""
    _, server = served
    loop = asyncio.get_running_loop()
    began = loop.time()
    slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MOST)]
    for _, writer in slow:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a")  # and never the rest
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await asyncio.wait_for(reader.read(), 10) == b"", "beyond the bound: closed at once"
    await closed(writer)
    for reader, writer in slow:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        await closed(writer)
    assert loop.time() - began >= IDLE_S
    assert (await get(server, "/healthz"))[0] == 200


async def test_a_connection_that_is_used_stays(served: tuple[Shown, WebServer]) -> None:
    """A scraper keeps one connection for longer than the time one may be idle."""
    _, server = served
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * IDLE_S
    while loop.time() < end:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"moderation_ready 1\n"), 10)
    await closed(writer)


async def test_a_port_that_is_taken_is_named_with_the_settings() -> None:
    """One line, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = WebServer(Shown(), Web(port=port))
        with pytest.raises(ConfigurationError, match=rf"web\.host 127\.0\.0\.1, web\.port {port} "):
            await server.start()


async def test_ipv6_is_listened_on() -> None:
    """With and without the brackets that addresses have in URLs."""
    for host in ("::1", "[::1]"):
        server = WebServer(Shown(), Web(host=host, port=0))
        await server.start()
        reader, writer = await asyncio.open_connection("::1", server.port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 200")
        await closed(writer)
        await server.stop()
