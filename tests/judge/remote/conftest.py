"""The bundled checkpoint is loaded once for all servers, and servers are opened per test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.support.openai_server import OpenAIServer, Writer
from tests.support.openai_writers import CheckpointWriter
from tests.support.remote_judges import remote_settings
from worker.clock import Clock
from worker.judge.remote.judge import RemoteJudge

Opener = Callable[..., Awaitable[RemoteJudge]]


@pytest.fixture(scope="session")
def tiny_writer() -> CheckpointWriter:
    return CheckpointWriter()


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[OpenAIServer]]]:
    """Opens servers; they are closed afterwards."""
    servers: list[OpenAIServer] = []

    async def serve(writer: Writer, **fields: object) -> OpenAIServer:
        server = OpenAIServer(writer, **fields)  # type: ignore[arg-type]
        servers.append(server)
        await server.open()
        return server

    yield serve
    for server in servers:
        await server.close()


@pytest_asyncio.fixture
async def judge_of() -> AsyncIterator[Opener]:
    """Starts judges of a server; they are stopped afterwards."""
    judges: list[RemoteJudge] = []

    async def judge_of(
        server: OpenAIServer, *, clock: Clock | None = None, **remote: object
    ) -> RemoteJudge:
        judge = RemoteJudge(remote_settings(server, **remote), clock=clock)
        judges.append(judge)
        await judge.start()
        server.requests.clear()
        server.headers.clear()
        return judge

    yield judge_of
    for judge in judges:
        await judge.stop()
