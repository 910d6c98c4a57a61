"""HTTP to one server: one session, kept-alive connections, every failure named."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
from opentelemetry import trace

from worker.contracts.codes import UndecidedReason
from worker.errors import ConfigurationError, Undecided
from worker.judge.remote.failure import Failure, Meaning, of_status
from worker.settings_remote import RemoteSettings
from worker.telemetry.names import Header
from worker.telemetry.propagation import traceparent

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Longest body that is read: a thousand tokens with a hundred alternatives are under 10 MB."""


class Client:
    """Requests to ``settings.base_url``. Made on the event loop that uses it; ``close`` it.

    Proxies are those of ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, if they are set.

    Raises:
        ConfigurationError: ``ca_file`` or ``api_key_file`` cannot be read.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._proxy = _proxy(settings.base_url)
        self._key = _read_key(settings)
        secure = settings.base_url.startswith("https://")
        connector = aiohttp.TCPConnector(
            limit=0,  # the judge bounds what is in flight
            ssl=_tls(settings) if secure else True,
            keepalive_timeout=30.0,
        )
        self._session = aiohttp.ClientSession(
            connector=connector, headers={"User-Agent": "moderation-worker"}
        )

    async def get(self, path: str, timeout_s: float) -> bytes:
        """The body at ``path`` (below the API, or from the root with a leading slash)."""
        return await self._send("GET", path, None, timeout_s)

    async def post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """The body of the answer to a JSON body.

        Raises:
            Failure: no whole answer came with status 200.
            Undecided: the server says that the prompt is too long for it.
        """
        return await self._send("POST", path, body, timeout_s)

    async def close(self) -> None:
        await self._session.close()

    async def _send(self, method: str, path: str, body: bytes | None, timeout_s: float) -> bytes:
        settings = self._settings
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=settings.connect_timeout_s)
        try:
            async with self._session.request(
                method,
                self._url(path),
                data=body,
                headers=await self._headers(),
                timeout=limits,
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                answer = await _whole(response)
                if response.status == 200:
                    return answer
                text = answer.decode("utf-8", "replace")
                raise of_status(response.status, text, response.headers.get("Retry-After"))
        except (Failure, Undecided):
            raise
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise Failure(Meaning.AWAY, "connection", detail="no connection") from error
        except TimeoutError as error:
            raise Failure(
                Meaning.DOUBTFUL,
                "timeout",
                reason=UndecidedReason.JUDGE_TIMEOUT,
                detail=f"no answer within {timeout_s:g} s",
            ) from error
        except aiohttp.ClientPayloadError as error:
            raise Failure(Meaning.DOUBTFUL, "cut_off", detail="the answer was cut off") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(
                Meaning.DOUBTFUL, "disconnected", detail="the connection was lost"
            ) from error
        except ValueError as error:
            raise Failure(Meaning.SETTINGS, "address", detail="the address is no URL") from error

    def _url(self, path: str) -> str:
        if not path.startswith("/"):
            return f"{self._settings.base_url}/{path}"
        root = self._settings.base_url.rsplit("/v1", 1)[0]
        return root + path

    async def _headers(self) -> Mapping[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._settings.api_key_file is not None:
            try:
                key = await asyncio.to_thread(_read_key, self._settings)
            except ConfigurationError:  # a mounted secret that is being replaced
                key = self._key
        else:
            key = self._key
        if key:
            headers["Authorization"] = f"Bearer {key}"
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            headers[Header.TRACEPARENT] = traceparent(context).decode("ascii")
        return headers


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body, no more than ``MAX_ANSWER_BYTES`` of it."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            response.close()
            raise Failure(Meaning.REFUSED, "too_large", detail="the answer is too large")
    return b"".join(pieces)


def _read_key(settings: RemoteSettings) -> str:
    if settings.api_key is not None:
        return _header_safe(settings.api_key.get_secret_value())
    if settings.api_key_file is None:
        return ""
    try:
        key = settings.api_key_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "judge.remote.api_key_file cannot be read; mount the secret, or correct the path"
        ) from error
    return _header_safe(key)


def _header_safe(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            "judge.remote.api_key holds characters that no header may hold; correct the key"
        )
    return key


def _tls(settings: RemoteSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"judge.remote.ca_file: {settings.ca_file} is no readable PEM bundle; correct it"
        ) from error


def _proxy(base_url: str) -> str | None:
    """The proxy that the environment names for this address, if any."""
    address = urlsplit(base_url)
    if urllib.request.proxy_bypass_environment(address.netloc):  # type: ignore[attr-defined]
        return None
    return urllib.request.getproxies_environment().get(address.scheme)
