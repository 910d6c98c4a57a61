"""From an event's reference to a checked key: the one gate between user input and the store.

Only ``s3://bucket/key`` passes. Never an endpoint, a region or a URL: those would let an event
choose which host the worker talks to. The key is taken literally, as S3 does; nothing is decoded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from urllib.parse import unquote

from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.errors import Undecided
from worker.media.base import ObjectKey

SCHEME = "s3://"
MAX_KEY_BYTES = 1024
"""Longest key S3 stores, in UTF-8 bytes (Amazon S3 user guide, "Object key naming")."""
MAX_VERSION_BYTES = 1024
_MAX_DECODINGS = 4

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_QUERY = re.compile(r"[?&](X-Amz-[A-Za-z-]+|AWSAccessKeyId|versionId)=", re.IGNORECASE)
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def parse_uri(ref: ImageRef, buckets: Collection[str], prefixes: Sequence[str]) -> ObjectKey:
    """Check a reference against its shape and the allow-lists.

    ``buckets`` are matched whole; none is allowed unless listed. ``prefixes`` are matched as plain
    string prefixes of the key (end them with ``/``); empty allows every key of the buckets.

    Raises:
        Undecided: ``image_uri_invalid`` for a wrong shape, ``image_not_allowed`` for a bucket or a
            key outside the lists. The detail says which rule; it never quotes the reference.
    """
    bucket, key = _split(ref.uri)
    if bucket not in buckets:
        raise Undecided(
            UndecidedReason.IMAGE_NOT_ALLOWED, field="uri", detail="bucket is not in store.buckets"
        )
    if prefixes and not any(key.startswith(prefix) for prefix in prefixes):
        raise Undecided(
            UndecidedReason.IMAGE_NOT_ALLOWED, field="uri", detail="key is not in store.prefixes"
        )
    return ObjectKey(
        bucket=bucket, key=key, version_id=_version(ref.version_id), sha256=_digest(ref.sha256)
    )


def _split(uri: str) -> tuple[str, str]:
    if not uri.startswith(SCHEME):
        raise _invalid("uri", "only s3://bucket/key is fetched")
    bucket, slash, key = uri[len(SCHEME) :].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise _invalid("uri", "no bucket name between s3:// and the next /")
    if not slash or not key:
        raise _invalid("uri", "no key after the bucket")
    if _bytes("uri", key) > MAX_KEY_BYTES:
        raise _invalid("uri", f"key is longer than {MAX_KEY_BYTES} bytes")
    if _QUERY.search(key):
        raise _invalid("uri", "presigned and query forms are refused; pin with version_id")
    # Gateways and proxies before the store may decode a key once more than S3 does, so a key must
    # be harmless however often it is decoded.
    for _ in range(_MAX_DECODINGS):
        _harmless(key)
        decoded = unquote(key, errors="replace")
        if decoded == key:
            return bucket, uri[len(SCHEME) + len(bucket) + 1 :]
        key = decoded
    raise _invalid("uri", "key is percent-encoded over and over")


def _harmless(key: str) -> None:
    if any(unicodedata.category(character) in _UNPRINTABLE for character in key):
        raise _invalid("uri", "key holds control characters")
    if any(part in {".", ".."} for part in re.split(r"[/\\]", key)):
        raise _invalid("uri", "key holds a . or .. segment")


def _version(version_id: str | None) -> str | None:
    if version_id is None:
        return None
    if not version_id or _bytes("version_id", version_id) > MAX_VERSION_BYTES:
        raise _invalid("version_id", f"must have 1 to {MAX_VERSION_BYTES} bytes")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in version_id):
        raise _invalid("version_id", "holds control characters")
    return version_id


def _digest(sha256: str | None) -> str | None:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise _invalid("sha256", "must be 64 hexadecimal digits")
    return sha256.lower() if sha256 else None


def _bytes(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _invalid(field, "holds half a surrogate pair") from None


def _invalid(field: str, detail: str) -> Undecided:
    return Undecided(UndecidedReason.IMAGE_URI_INVALID, field=field, detail=detail)
