"""The S3 store: one boto3 client, made once, shared by the fetcher's threads."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from worker.clock import Clock, SystemClock
from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey
from worker.media.s3_errors import configuration, is_store_error, translate
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
            if isinstance(error, ValueError) or is_store_error(error):
                raise configuration(error) or ConfigurationError(
                    f"store: no S3 client ({type(error).__name__}); check store.endpoint_url "
                    "and store.region"
                ) from error
            raise

    def read(self, key: ObjectKey, max_bytes: int) -> bytes:
        until = self._clock.monotonic() + self._settings.fetch_deadline_s
        try:
            answer = self._get(key)
            return self._body(answer, max_bytes, until)
        except (Undecided, DependencyUnavailable):
            raise
        except Exception as error:
            raise translate(error) from error

    def check(self) -> None:
        for bucket in self._settings.buckets:
            try:
                answer = self._get(ObjectKey(bucket=bucket, key=CHECK_KEY))
                answer["Body"].close()
            except Exception as error:
                if wrong := configuration(error):
                    raise wrong from error
                meaning = translate(error)
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


def _too_large(max_bytes: int) -> Undecided:
    return Undecided(
        UndecidedReason.IMAGE_TOO_LARGE, field="uri", detail=f"more than {max_bytes} bytes"
    )
