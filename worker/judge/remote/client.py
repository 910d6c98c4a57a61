"""HTTP to one server: one session, kept-alive connections, every failure named."""

from __future__ import annotations

import asyncio
import re
import ssl
import urllib.request
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

import aiohttp
from opentelemetry import trace

from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, Undecided
from worker.records import Header
from worker.settings.sections import RemoteSettings
from worker.telemetry.tracing import traceparent

# What can go wrong with one HTTP request, and what that says about the server and the event.
#
# ``AWAY``      refused connection, 408, 429, 502 to 504  the server or its gateway has nobody free
# ``SETTINGS``  401, 403, 404, a redirect                 nothing passes, or a rule meets this one
# ``DOUBTFUL``  time-out, 500, body cut off               server or event: only a probe tells
# ``REFUSED``   400, 422, an answer that cannot be read   as ``DOUBTFUL``, but the same again


class Meaning(StrEnum):
    """See the table above."""

    AWAY = "away"
    SETTINGS = "settings"
    DOUBTFUL = "doubtful"
    REFUSED = "refused"


class Failure(Exception):
    """One failed request. ``kind`` is a metric label; ``reason`` holds if the event is to blame.

    ``retry_after_s`` is what the server asked for. Nothing the server wrote is kept: an error
    message may quote the content.
    """

    def __init__(
        self,
        meaning: Meaning,
        kind: str,
        *,
        reason: UndecidedReason = UndecidedReason.JUDGE_REJECTED,
        detail: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.meaning, self.kind, self.reason = meaning, kind, reason
        self.detail = detail or kind.replace("_", " ")
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


_TOO_LONG = re.compile(
    r"context[ _]length|maximum (context|model|input|prompt) length|max_model_len|max_seq_len"
    r"|(prompt|input|request)[^.]{0,40} too (long|large)|longer than the maximum",
    re.IGNORECASE,
)
"""How vLLM, SGLang, TensorRT-LLM and the OpenAI API say that a prompt does not fit."""
_SETTINGS = frozenset({401, 403, 404, 405, 407})
_AWAY = frozenset({408, 425, 429, 502, 503, 504})


def of_status(status: int, body: str, retry_after: str | None) -> Failure | Undecided:
    """What an answer that is not 200 means. ``body`` is looked at, and never kept."""
    kind = f"http_{status}"
    if status in (400, 413, 422) and (status == 413 or _TOO_LONG.search(body[:20_000])):
        return Undecided(
            UndecidedReason.CONTEXT_TOO_LONG, detail="the judged turn does not fit the server"
        )
    if status in _AWAY:
        return Failure(Meaning.AWAY, kind, retry_after_s=seconds(retry_after))
    if status in _SETTINGS or 300 <= status < 400:
        return Failure(Meaning.SETTINGS, kind)
    if status >= 500:
        return Failure(Meaning.DOUBTFUL, kind, retry_after_s=seconds(retry_after))
    return Failure(Meaning.REFUSED, kind)


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds (RFC 9110, 10.2.3), None where it names none."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isdigit():
        return float(text[:9])
    # Imported here: dates are rare, and the module is slow to load.
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


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
