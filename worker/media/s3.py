"""The S3 store: one boto3 client, made once, shared by threads; and what its errors mean.

The whole difference between an event called undecided and a partition paused is made at the end of
this file: what an error says about the object, and what about the store.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import boto3
from botocore import exceptions as botocore
from botocore.config import Config
from urllib3.exceptions import HTTPError

from worker.clock import Clock, SystemClock
from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey
from worker.settings import Store

ATTEMPTS = 3
"""Tries of one request inside the client, the first included."""
CHECK_KEY = ".moderation-worker/check"
"""Read by ``check``; it need not exist. A read asks for no more rights than fetching does."""
_CHUNK = 256 * 1024


class S3Store:
    """Reads from S3 or a compatible store.

    ``check`` reads a key that need not exist in every bucket, so it takes the same path as real
    reads and needs no right to list. Buckets are called one by one; with none listed it is silent.
    """

    def __init__(self, settings: Store, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        try:
            # Sessions are not thread-safe and the module-level one is shared: take one of our own.
            self._client: Any = boto3.session.Session().client(
                "s3",
                endpoint_url=settings.endpoint_url,
                region_name=settings.region,
                config=_config(settings),
            )
        except Exception as error:
            if isinstance(error, ValueError) or _is_store_error(error):
                raise _configuration(error) or ConfigurationError(
                    f"store: no S3 client ({type(error).__name__}); check store.endpoint_url "
                    "and store.region"
                ) from error
            raise

    def read(self, key: ObjectKey, max_bytes: int) -> bytes:
        until = self._clock.monotonic() + self._settings.fetch_deadline_s
        try:
            answer = self._get(key)
            body = self._body(answer, max_bytes, until)
            return _unpacked(body, answer.get("ContentEncoding") or "", max_bytes)
        except (Undecided, DependencyUnavailable):
            raise
        except Exception as error:
            raise _translate(error) from error

    def check(self) -> None:
        for bucket in self._settings.buckets:
            try:
                answer = self._get(ObjectKey(bucket=bucket, key=CHECK_KEY))
                answer["Body"].close()
            except Exception as error:
                if wrong := _configuration(error):
                    raise wrong from error
                meaning = _translate(error)
                if isinstance(meaning, DependencyUnavailable):
                    raise meaning from error
                # Missing or forbidden: the store answered, which is all that was asked.

    def close(self) -> None:
        self._client.close()

    def _get(self, key: ObjectKey) -> dict[str, Any]:
        pins = {"VersionId": key.version_id} if key.version_id is not None else {}
        answer: dict[str, Any] = self._client.get_object(Bucket=key.bucket, Key=key.key, **pins)
        return answer

    def _body(self, answer: dict[str, Any], max_bytes: int, until: float) -> bytes:
        body = answer["Body"]
        complete = False
        try:
            size = answer.get("ContentLength")
            if size is not None and size > max_bytes:
                raise _too_large(max_bytes)
            # read(n) waits for n bytes, so a store that drips one byte at a time would never meet
            # the read timeout; read1 returns what has come, and the deadline is seen.
            source = body._raw_stream
            chunks: list[bytes] = []
            total = 0
            while chunk := source.read1(min(_CHUNK, max_bytes + 1 - total)):
                chunks.append(chunk)
                total += len(chunk)
                if total > max_bytes:
                    raise _too_large(max_bytes)
                if self._clock.monotonic() > until:
                    raise DependencyUnavailable("store", "the read outlasted its deadline")
            if size is not None and total != size:
                raise DependencyUnavailable("store", "the body is not as long as announced")
            complete = True
            return b"".join(chunks)
        finally:
            if not complete:
                body.close()  # a half-read connection must not go back to the pool


def _config(settings: Store) -> Any:
    return Config(
        max_pool_connections=settings.threads,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        tcp_keepalive=True,
        # Stores that are not AWS refuse the newer default checksums; pins are checked by sha256.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if settings.path_style else "auto"},
        user_agent_extra="moderation-worker",
    )


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The object as a viewer gets it: an upload may have been stored compressed, and say so.

    Raises:
        Undecided: ``image_too_large`` from the first byte too many, ``image_corrupt`` where it is
            cut off, ``image_format`` for an encoding that is not read.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    names = [name for name in names if name not in ("", "identity", "aws-chunked")]
    if not names or (names == ["gzip"] and body[:2] != b"\x1f\x8b"):  # unpacked on the way
        return body
    if names != ["gzip"]:
        raise Undecided(
            UndecidedReason.IMAGE_FORMAT, field="uri", detail="Content-Encoding other than gzip"
        )
    out, rest = b"", body
    while rest[:2] == b"\x1f\x8b":  # members may follow one another
        packer = zlib.decompressobj(wbits=31)
        try:
            out += packer.decompress(rest, max_bytes + 1 - len(out))
        except zlib.error:
            raise _cut_off() from None
        if len(out) > max_bytes:
            raise _too_large(max_bytes)
        if not packer.eof:
            raise _cut_off()
        rest = packer.unused_data
    return out


def _cut_off() -> Undecided:
    return Undecided(
        UndecidedReason.IMAGE_CORRUPT, field="uri", detail="gzip that is cut off or damaged"
    )


def _too_large(max_bytes: int) -> Undecided:
    return Undecided(
        UndecidedReason.IMAGE_TOO_LARGE, field="uri", detail=f"more than {max_bytes} bytes"
    )


# What errors mean

_MISSING = frozenset(
    {"NoSuchKey", "NoSuchVersion", "NotFound", "404", "MethodNotAllowed", "KeyTooLongError"}
)
"""Includes a delete marker, which S3 answers with MethodNotAllowed when its version is named."""

_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
        "AccountProblem",
        "NotSignedUp",
        "InvalidSecurity",
        "AuthorizationHeaderMalformed",
        "MissingSecurityHeader",
    }
)
"""403s (and 400s) that every object would get: the worker's credentials, not the object."""

_WRONG_PLACE = frozenset(
    {"NoSuchBucket", "PermanentRedirect", "IllegalLocationConstraintException", "301"}
)
"""The bucket is not there or lies in another region: configuration, not the object."""

_TRANSIENT = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "RequestTimeout",
        "RequestTimeoutException",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "BandwidthLimitExceeded",
    }
)

_CREDENTIAL_ERRORS: tuple[type[Exception], ...] = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.TokenRetrievalError,
    botocore.SSOError,
    botocore.ProfileNotFound,
)
_SETTING_ERRORS: tuple[type[Exception], ...] = (
    *_CREDENTIAL_ERRORS,
    botocore.NoRegionError,
    botocore.InvalidRegionError,
    botocore.UnknownEndpointError,
)


def _translate(error: Exception) -> Undecided | DependencyUnavailable:
    """Blame the object only for what the store says about this object.

    Anything that would hit every object (network, credentials, region, a bucket that is gone) and
    anything not understood is the store's: it is retried, and nothing is called undecided for it.
    """
    if isinstance(error, botocore.ClientError):
        return _answer(error.response)
    if isinstance(error, botocore.ParamValidationError):
        return Undecided(
            UndecidedReason.IMAGE_URI_INVALID, field="uri", detail="refused by the S3 client"
        )
    return DependencyUnavailable("store", type(error).__name__)


def _configuration(error: Exception) -> ConfigurationError | None:
    """The same error seen at start: what to change, or None where the settings are not at fault."""
    if isinstance(error, _CREDENTIAL_ERRORS):
        return ConfigurationError(
            f"store: no usable S3 credentials ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile, or a role"
        )
    if isinstance(error, _SETTING_ERRORS):
        return ConfigurationError(
            f"store: {type(error).__name__}; set store.region and store.endpoint_url"
        )
    if isinstance(error, botocore.ClientError):
        code, _ = _code(error.response)
        if code in _CREDENTIALS:
            return ConfigurationError(
                f"store: S3 refuses the credentials ({code}); check the key pair, the clock and "
                "store.region"
            )
        if code in _WRONG_PLACE:
            return ConfigurationError(
                f"store: {code}; check store.buckets, store.region and store.endpoint_url"
            )
    return None


def _is_store_error(error: Exception) -> bool:
    """Whether ``error`` came from S3 or the way to it, rather than from a mistake in this code."""
    return isinstance(error, (botocore.BotoCoreError, botocore.ClientError, HTTPError, OSError))


def _answer(response: Mapping[str, Any]) -> Undecided | DependencyUnavailable:
    code, status = _code(response)
    if code in _CREDENTIALS or code in _WRONG_PLACE or code in _TRANSIENT:
        return DependencyUnavailable("store", code)
    if status >= 500 or status in (408, 429) or 300 <= status < 400:
        return DependencyUnavailable("store", f"{code} ({status})")
    if code in _MISSING or status == 404:
        return Undecided(UndecidedReason.IMAGE_MISSING, field="uri", detail=code)
    if code == "InvalidArgument":
        # With a checked bucket and key, the version id is the one argument left.
        return Undecided(UndecidedReason.IMAGE_MISSING, field="version_id", detail=code)
    # AccessDenied, InvalidObjectState (archived), KMS.*, and every other refusal of this object.
    return Undecided(UndecidedReason.IMAGE_FORBIDDEN, field="uri", detail=code)


def _code(response: Mapping[str, Any]) -> tuple[str, int]:
    # The code is a server's text: reduced to a token before it reaches a verdict or a log.
    code = re.sub(r"[^A-Za-z0-9.]", "", str(response.get("Error", {}).get("Code", "")))[:64]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code or "unknown", int(status or 0)
