"""HTTP to one server: one session, kept-alive connections, every failure named."""

from __future__ import annotations

import asyncio
import re
import ssl
import urllib.request
import zlib
from collections.abc import Mapping
from enum import StrEnum

import aiohttp
from opentelemetry import trace
from yarl import URL

from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, Undecided
from worker.records import Header
from worker.settings.sections import RemoteSettings
from worker.telemetry.tracing import traceparent

# What can go wrong with one HTTP request, and what that says about the server and the event.
#
# ``AWAY``      no connection, 408, 429, 502 to 504       the server or its gateway has nobody free
# ``SETTINGS``  401, 403, 404, a redirect, a certificate  nothing passes, or a rule meets this one
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


GONE = frozenset({"connection", "disconnected"})
"""Kinds of failure after which whatever answers next may be another server."""

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
"""Longest body that is read, after it was decompressed: a thousand tokens with a hundred
alternatives are under 10 MB."""
_PIECE_BYTES = 1024 * 1024
"""Most that is decompressed before others on the event loop have their turn."""
_VERSION = re.compile(r"v\d+[a-z0-9]*", re.IGNORECASE)


class Client:
    """Requests to ``settings.base_url``. Made on the event loop that uses it; ``close`` it.

    Proxies are those of ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, if they are set.

    Raises:
        ConfigurationError: ``ca_file`` or ``api_key_file`` cannot be read.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._base = URL(settings.base_url)
        self._proxy = _proxy(self._base)
        self._key = _read_key(settings)
        secure = self._base.scheme == "https"
        connector = aiohttp.TCPConnector(
            limit=0,  # the judge bounds what is in flight
            ssl=_tls(settings) if secure else True,
            keepalive_timeout=30.0,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": "moderation-worker"},
            auto_decompress=False,  # it has no bound: a megabyte may hold a gigabyte
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

    async def expects_tls(self) -> bool:
        """Whether a port that was spoken to without TLS would rather have it."""
        if self._base.scheme != "http":
            return False
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
        host, port, longest = self._base.host, self._base.port, self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(longest):
                _, writer = await asyncio.open_connection(host, port, ssl=context)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

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
            raise self._unconnected(error) from error
        except TimeoutError as error:
            raise Failure(
                Meaning.DOUBTFUL,
                "timeout",
                reason=UndecidedReason.JUDGE_TIMEOUT,
                detail=f"no answer within {timeout_s:g} s",
            ) from error
        except aiohttp.ClientPayloadError as error:
            raise Failure(Meaning.DOUBTFUL, "cut_off", detail="the answer was cut off") from error
        except aiohttp.ClientResponseError as error:
            # What came is no HTTP: a port that speaks TLS, or something else altogether.
            raise Failure(
                Meaning.DOUBTFUL, "no_http", detail=f"what answers at {self._place()} is no HTTP"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure(
                Meaning.DOUBTFUL, "disconnected", detail="the connection was lost"
            ) from error
        except ValueError as error:
            raise Failure(Meaning.SETTINGS, "address", detail="the address is no URL") from error

    def _url(self, path: str) -> URL:
        """Always of the base's own origin, which alone may see the key; its query is kept."""
        parts = [each for each in self._base.parts if each != "/"]
        if path.startswith("/"):
            # Beside the API, not below it: what stands in front of its version is kept.
            if parts and _VERSION.fullmatch(parts[-1]):
                parts.pop()
            path = path[1:]
        return self._base.with_path("/" + "/".join([*parts, path]), keep_query=True)

    def _place(self) -> str:
        return f"{self._base.host}:{self._base.port}"

    def _unconnected(self, error: Exception) -> Failure:
        """Why there is no connection, in words that say what to look at."""
        place = self._place()
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = getattr(error.certificate_error, "verify_message", "") or "it is not trusted"
            detail = f"the certificate of {place} is refused ({why})"
            return Failure(Meaning.SETTINGS, "certificate", detail=detail)
        if isinstance(error, aiohttp.ClientSSLError):
            detail = f"what answers at {place} speaks no TLS"
            return Failure(Meaning.SETTINGS, "tls", detail=detail)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Failure(
                Meaning.AWAY, "connection", detail=f"the name {self._base.host} is unknown"
            )
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Failure(Meaning.AWAY, "connection", detail=f"no connection to {place} in time")
        return Failure(Meaning.AWAY, "connection", detail=f"{place} takes no connection")

    async def _headers(self) -> Mapping[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }
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
    """The body, decompressed, no more than ``MAX_ANSWER_BYTES`` of it.

    Raises:
        Failure: it is longer, or compressed in a way that nobody asked for.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        unpack = None
    elif encoding in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # by its header, gzip or zlib
    else:
        response.close()
        raise Failure(Meaning.REFUSED, "encoding", detail="the answer is compressed in another way")
    pieces, size = [], 0
    async for packed in response.content.iter_any():
        while packed:
            if unpack is None:
                piece, packed = packed, b""
            else:
                try:
                    piece = unpack.decompress(packed, _PIECE_BYTES)
                except zlib.error as error:
                    response.close()
                    raise Failure(
                        Meaning.DOUBTFUL, "cut_off", detail="the answer cannot be decompressed"
                    ) from error
                packed = unpack.unconsumed_tail
                if not piece and not packed:
                    break
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                response.close()
                raise Failure(Meaning.REFUSED, "too_large", detail="the answer is too large")
            if packed:
                await asyncio.sleep(0)
    if unpack is not None and not unpack.eof:
        raise Failure(Meaning.DOUBTFUL, "cut_off", detail="the answer was cut off")
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


def _proxy(address: URL) -> str | None:
    """The proxy that the environment names for this address, if any."""
    if urllib.request.proxy_bypass_environment(address.authority):  # type: ignore[attr-defined]
        return None
    return urllib.request.getproxies_environment().get(address.scheme)
