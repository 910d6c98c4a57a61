"""One failure to read a record, and its form as record headers: text, in one namespace."""

from __future__ import annotations

import msgspec

from worker.contracts.codes import DeadLetterCode
from worker.contracts.verdict import SourceRef
from worker.errors import UnreadableRecord
from worker.stream.base import Headers
from worker.telemetry.names import Header

MAX_HISTORY = 8
"""Failures kept in the headers of a record that fails again and again: the first, and the last."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why and where a record could not be read."""

    code: str
    """A stable code; new ones may be added."""
    field: str
    """Path of the field or name of the header at fault; empty where it is the whole value."""
    detail: str
    """What is wrong with it, in types and lengths, never in the record's own words."""
    source: SourceRef
    """Where the record was read."""
    failed_at: str
    """When it failed, RFC 3339 in UTC."""
    worker_build: str
    """Version of the worker that could not read it."""
    null_value: bool
    """Whether the value was null; it is empty here, for a null would be deleted by compaction."""
    by_reference: bool
    """Whether the value was too large to copy; a ``RecordReference`` stands in its place."""


def write_failure(failure: Failure) -> Headers:
    """The headers of one failure, the code first; false flags are left out."""
    texts = [
        (Header.DEAD_LETTER_CODE, failure.code),
        (Header.DEAD_LETTER_FIELD, failure.field),
        (Header.DEAD_LETTER_DETAIL, failure.detail),
        (Header.DEAD_LETTER_TOPIC, failure.source.topic),
        (Header.DEAD_LETTER_PARTITION, str(failure.source.partition)),
        (Header.DEAD_LETTER_OFFSET, str(failure.source.offset)),
        (Header.DEAD_LETTER_TIMESTAMP, str(failure.source.timestamp)),
        (Header.DEAD_LETTER_FAILED_AT, failure.failed_at),
        (Header.DEAD_LETTER_WORKER_BUILD, failure.worker_build),
    ]
    if failure.null_value:
        texts.append((Header.DEAD_LETTER_NULL_VALUE, "true"))
    if failure.by_reference:
        texts.append((Header.DEAD_LETTER_BY_REFERENCE, "true"))
    return tuple((name, text.encode()) for name, text in texts)


def failure_starts(headers: Headers) -> list[int]:
    """Indices at which a failure's headers begin, oldest first."""
    return [at for at, (name, _) in enumerate(headers) if name == Header.DEAD_LETTER_CODE]


def read_failure(headers: Headers) -> Failure:
    """Read the headers of one failure; ``headers`` begins with its code.

    Raises:
        UnreadableRecord: ``missing_field``, ``wrong_type`` or ``not_utf8``, with the header's name.
    """
    found = {name: content for name, content in headers if _is_ours(name)}

    def text(name: str) -> str:
        content = found.get(name)
        if content is None:
            raise UnreadableRecord(DeadLetterCode.MISSING_FIELD, field=name, detail="is missing")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise UnreadableRecord(
                DeadLetterCode.NOT_UTF8, field=name, detail="is not UTF-8"
            ) from None

    def number(name: str) -> int:
        digits = text(name)
        try:
            return int(digits)
        except ValueError:
            raise UnreadableRecord(
                DeadLetterCode.WRONG_TYPE, field=name, detail="is not a number"
            ) from None

    return Failure(
        code=text(Header.DEAD_LETTER_CODE),
        field=text(Header.DEAD_LETTER_FIELD),
        detail=text(Header.DEAD_LETTER_DETAIL),
        source=SourceRef(
            topic=text(Header.DEAD_LETTER_TOPIC),
            partition=number(Header.DEAD_LETTER_PARTITION),
            offset=number(Header.DEAD_LETTER_OFFSET),
            timestamp=number(Header.DEAD_LETTER_TIMESTAMP),
        ),
        failed_at=text(Header.DEAD_LETTER_FAILED_AT),
        worker_build=text(Header.DEAD_LETTER_WORKER_BUILD),
        null_value=found.get(Header.DEAD_LETTER_NULL_VALUE) == b"true",
        by_reference=found.get(Header.DEAD_LETTER_BY_REFERENCE) == b"true",
    )


def bounded_history(headers: Headers) -> Headers:
    """Room for one more failure: beyond ``MAX_HISTORY``, those after the first are dropped."""
    starts = failure_starts(headers)
    surplus = len(starts) + 1 - MAX_HISTORY
    if surplus <= 0:
        return headers
    first_dropped, first_kept = starts[1], starts[1 + surplus]
    dropped = headers[first_dropped:first_kept]
    others = tuple(header for header in dropped if not _is_ours(header[0]))
    return headers[:first_dropped] + others + headers[first_kept:]


def _is_ours(name: str) -> bool:
    return name.startswith(Header.DEAD_LETTER_PREFIX)
