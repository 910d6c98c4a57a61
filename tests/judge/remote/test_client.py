"""The way to the server: bounded answers, one origin, words for what is wrong with an address."""

from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
import trustme

from tests.support.openai_server import Body, Fault, OpenAIServer, Written
from tests.support.openai_writers import ScriptWriter, script, token
from tests.support.remote_judges import remote_settings
from worker.errors import ConfigurationError, DependencyUnavailable
from worker.judge.remote.client import MAX_ANSWER_BYTES, Client, Failure, Meaning
from worker.judge.remote.judge import RemoteJudge
from worker.settings import JudgeSettings
from worker.settings.sections import RemoteSettings

Serve = Callable[..., Awaitable[OpenAIServer]]


def safe(_: Body) -> Written:
    return script(token("User Safety:"), token(" safe", 0.98, {" unsafe": 0.01}))


@pytest_asyncio.fixture
async def client(serve: Serve) -> AsyncIterator[tuple[Client, OpenAIServer]]:
    server = await serve(ScriptWriter(safe))
    client = Client(remote_settings(server).remote)
    yield client, server
    await client.close()


def body() -> bytes:
    return b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}'


async def answer(client: tuple[Client, OpenAIServer], packed: bytes, encoding: str) -> bytes:
    one, server = client
    headers = {"Content-Encoding": encoding}
    server.faults[""] = Fault(raw=packed, headers=headers)
    return await one.post("chat/completions", body(), 20.0)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
async def test_compressed_answers_are_read(
    client: tuple[Client, OpenAIServer], encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    said = b"an answer of some length " * 100_000
    assert await answer(client, pack(said), encoding) == said


async def test_an_answer_is_bounded_while_it_is_decompressed(
    client: tuple[Client, OpenAIServer],
) -> None:
    """A megabyte that holds a gigabyte: refused after the bound, and the loop has its turns."""
    packed = gzip.compress(bytes(16 * MAX_ANSWER_BYTES))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    tracemalloc.start()
    try:
        with pytest.raises(Failure) as caught:
            await answer(client, packed, "gzip")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        beside.cancel()
    assert caught.value.kind == "too_large"
    assert peak < 3 * MAX_ANSWER_BYTES
    assert turns > MAX_ANSWER_BYTES // (1024 * 1024)


@pytest.mark.parametrize(
    ("packed", "encoding", "kind"),
    [
        (gzip.compress(b"whole")[:-6], "gzip", "cut_off"),
        (b"no gzip at all", "gzip", "cut_off"),
        (b"\x0b\x02\x80", "br", "encoding"),
    ],
)
async def test_what_cannot_be_decompressed_is_no_answer(
    client: tuple[Client, OpenAIServer], packed: bytes, encoding: str, kind: str
) -> None:
    with pytest.raises(Failure) as caught:
        await answer(client, packed, encoding)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://vllm:8000/v1", "models", "http://vllm:8000/v1/models"),
        ("http://vllm:8000/v1", "/tokenize", "http://vllm:8000/tokenize"),
        ("http://vllm:8000/v1/", "/tokenize", "http://vllm:8000/tokenize"),
        ("https://gw.example/team/v1", "/version", "https://gw.example/team/version"),
        ("http://v1.judge.svc/openai", "models", "http://v1.judge.svc/openai/models"),
        ("http://v1.judge.svc/openai", "/tokenize", "http://v1.judge.svc/openai/tokenize"),
        ("https://v1-gw.example", "/tokenize", "https://v1-gw.example/tokenize"),
        ("https://gw/v1beta/openai", "/version", "https://gw/v1beta/openai/version"),
        (
            "https://gw/openai/v1?api-version=3",
            "chat/completions",
            "https://gw/openai/v1/chat/completions?api-version=3",
        ),
        (
            "https://gw/openai/v1?api-version=3",
            "/tokenize",
            "https://gw/openai/tokenize?api-version=3",
        ),
    ],
)
async def test_every_address_is_of_the_base_urls_own_origin(base: str, path: str, url: str) -> None:
    """Wherever ``v1`` stands in it; and what it asks for in its query goes along."""
    client = Client(RemoteSettings(base_url=base))
    try:
        found = client._url(path)
    finally:
        await client.close()
    assert str(found) == url
    assert found.origin() == client._base.origin()


async def test_a_redirect_is_not_followed_with_the_key(serve: Serve) -> None:
    """A key goes to the origin that the settings name, wherever that one points."""
    server, other = await serve(ScriptWriter(safe)), await serve(ScriptWriter(safe))
    headers = {"Location": f"{other.url}/chat/completions"}
    server.faults[""] = Fault(raw=b"", status=307, headers=headers)
    settings = remote_settings(server, api_key="secret").remote
    client = Client(settings)
    try:
        with pytest.raises(Failure) as caught:
            await client.post("chat/completions", body(), 5.0)
    finally:
        await client.close()
    assert caught.value.meaning is Meaning.SETTINGS
    assert other.requests == []


@pytest.mark.parametrize(
    "base",
    [
        "vllm:8000",
        "http://",
        "http://vllm:99999/v1",
        "ftp://vllm/v1",
        "http://u:p@vllm/v1",
        "http://[::1/v1",
    ],
)
def test_a_base_url_that_is_none_is_refused(base: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        RemoteSettings(base_url=base)


# What is wrong with an address is said at once, and not after ten minutes of waiting.


async def refused(settings: JudgeSettings) -> str:
    judge = RemoteJudge(settings)
    with pytest.raises(ConfigurationError) as caught:
        async with asyncio.timeout(20.0):
            await judge.start()
    return str(caught.value)


@pytest_asyncio.fixture
async def secure() -> AsyncIterator[tuple[OpenAIServer, trustme.CA]]:
    """A server with a certificate of an authority that nobody knows."""
    authority = trustme.CA()
    server = OpenAIServer(ScriptWriter(safe))
    server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server.tls)
    await server.open()
    yield server, authority
    await server.close()


async def test_a_certificate_that_is_not_trusted_is_a_setting(
    secure: tuple[OpenAIServer, trustme.CA], tmp_path: object
) -> None:
    server, authority = secure
    said = await refused(remote_settings(server, start_timeout_s=600.0))
    assert "judge.remote.ca_file" in said
    assert "certificate" in said
    with authority.cert_pem.tempfile() as file:
        judge = RemoteJudge(remote_settings(server, ca_file=file))
        await judge.start()
        await judge.stop()


async def test_a_certificate_of_another_host_is_a_setting(
    secure: tuple[OpenAIServer, trustme.CA],
) -> None:
    server, authority = secure
    with authority.cert_pem.tempfile() as file:
        url = server.url.replace("127.0.0.1", "localhost")
        said = await refused(
            remote_settings(server, base_url=url, ca_file=file, start_timeout_s=600.0)
        )
    assert "certificate" in said
    assert "localhost" in said


async def test_https_on_a_port_without_tls_is_said_at_once(serve: Serve) -> None:
    server = await serve(ScriptWriter(safe))
    url = server.url.replace("http://", "https://")
    said = await refused(remote_settings(server, base_url=url, start_timeout_s=600.0))
    assert "http://" in said


async def test_http_on_a_port_with_tls_is_said_at_once(
    secure: tuple[OpenAIServer, trustme.CA],
) -> None:
    server, _ = secure
    url = server.url.replace("https://", "http://")
    said = await refused(remote_settings(server, base_url=url, start_timeout_s=600.0))
    assert "https://" in said


async def test_a_name_that_nobody_knows_is_said_while_it_is_waited_for(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """It may come up with its service; until then the log says what is waited for."""
    server = await serve(ScriptWriter(safe))
    settings = remote_settings(server, base_url="http://no-such-host.invalid/v1")
    caplog.set_level(logging.WARNING)
    with pytest.raises(DependencyUnavailable, match=r"no-such-host\.invalid"):
        await RemoteJudge(settings).start()
