"""The worker's own web server: five pages, bounded connections, and names it answers to.

Probes and metrics answer whoever asks. The console answers to names that somebody chose: a page
elsewhere can make a browser send requests here under a name of its own (DNS rebinding), and would
then read what the console shows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from worker.errors import ConfigurationError
from worker.settings import Web
from worker.web.console import ConsoleView, Page, console_json, console_page
from worker.web.health import Health

MAX_CONNECTIONS = 200
"""Further ones are closed at once: probes, scrapes and a few browsers need a dozen."""
IDLE_S = 30.0
"""A connection that has not finished its request by then, or has none, is closed."""
MAX_HEADER_BYTES = 8190


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Worker(Protocol):
    """What the pages are made from."""

    def health(self) -> tuple[Health, Health]: ...

    def console(self, event_id: str = "") -> ConsoleView: ...

    def metrics(self, accept: str) -> tuple[bytes, str]: ...


class WebServer:
    """Serves one worker's pages between ``start`` and ``stop``; ``port`` is the one that was taken.

    ``idle_s`` and ``most`` bound how long a connection may do nothing, and how many there are.
    """

    def __init__(
        self, worker: Worker, settings: Web, *, idle_s: float = IDLE_S, most: int = MAX_CONNECTIONS
    ) -> None:
        self._worker, self._settings = worker, settings
        self._idle_s, self._most = idle_s, most
        self._last: dict[RequestHandler, float] = {}
        self._busy: set[RequestHandler] = set()
        self._server: asyncio.Server | None = None

        @web.middleware
        async def watched(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._watched(request, handler)

        application = web.Application(middlewares=[watched], client_max_size=1024)
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/", self._console),
                web.get("/console.json", self._console_data),
            ]
        )
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=idle_s,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self.port = settings.port

    async def start(self) -> None:
        """Listen; on ``::`` in both families, as other servers do (asyncio would bind IPv6 alone).

        Raises:
            ConfigurationError: the port is taken, or the address is none of this machine's.
        """
        await self._runner.setup()
        host, port = self._settings.host.strip("[]"), self._settings.port
        loop = asyncio.get_running_loop()
        try:
            if host == "::" and socket.has_dualstack_ipv6():
                both = socket.create_server(
                    (host, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=self._most
                )
                self._server = await loop.create_server(self._connection, sock=both)
            else:
                self._server = await loop.create_server(
                    self._connection, host, port, backlog=self._most
                )
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"web.host {host}, web.port {port} cannot be listened on ({error.strerror}): stop "
                "what listens there, or set web.host and web.port (0 takes a free one)"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
            await self._runner.cleanup()
            self._server = None

    # Connections.

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._most:
            return _Refused()
        handler = server()
        loop = asyncio.get_running_loop()
        self._last[handler] = loop.time()
        loop.call_later(self._idle_s, self._look, handler)
        return handler

    def _look(self, handler: RequestHandler) -> None:
        """Close a connection that does nothing; look again while it does something."""
        loop = asyncio.get_running_loop()
        transport = handler.transport
        left = self._last[handler] + self._idle_s - loop.time()
        if transport is None or transport.is_closing():
            del self._last[handler]
        elif handler in self._busy or left > 0:
            loop.call_later(max(left, self._idle_s / 4), self._look, handler)
        else:
            transport.abort()
            del self._last[handler]

    async def _watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        self._busy.add(connection)
        try:
            return await handler(request)
        finally:
            self._busy.discard(connection)
            if connection in self._last:
                self._last[connection] = asyncio.get_running_loop().time()

    # Pages.

    async def _healthz(self, request: web.Request) -> web.Response:
        """Live: the loop turns and batches finish."""
        return _probe(self._worker.health()[0])

    async def _readyz(self, request: web.Request) -> web.Response:
        """Ready: model warm, partitions assigned, every topic with a live policy."""
        return _probe(self._worker.health()[1])

    async def _metrics(self, request: web.Request) -> web.Response:
        """Prometheus exposition."""
        body, content_type = self._worker.metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _console(self, request: web.Request) -> web.Response:
        return self._page(request, console_page)

    async def _console_data(self, request: web.Request) -> web.Response:
        return self._page(request, console_json)

    def _page(self, request: web.Request, render: Callable[[ConsoleView], Page]) -> web.Response:
        if not answers_to(request.headers.get("Host", ""), self._settings):
            text = "the console does not answer to this name; list it in web.hosts\n"
            return web.Response(status=421, text=text)
        page = render(self._worker.console(request.query.get("event", "")[:256]))
        headers = {**page.headers, "Content-Type": page.content_type}
        return web.Response(body=page.body, status=page.status, headers=headers)


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _probe(health: Health) -> web.Response:
    return web.Response(body=health.body(), status=health.status, content_type="application/json")


def answers_to(host: str, settings: Web) -> bool:
    """Whether the console answers to a ``Host`` header: an address, this machine, or a chosen name.

    An address cannot be rebound, and a request without a name comes from no browser.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").rstrip(".").lower()
    if not name or "*" in settings.hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        known = {"localhost", socket.gethostname().lower(), settings.host.lower()}
        return (
            name in known or name.endswith(".localhost") or name in map(str.lower, settings.hosts)
        )
    return True
