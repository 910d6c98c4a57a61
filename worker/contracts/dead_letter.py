"""DeadLetter v1: the record that could not be read, untouched, and headers that say why.

All of ours stand under ``moderation.dead-letter.`` behind the record's own headers, as text. A
record that is dead-lettered again keeps what stood there: the new ones follow, and the first and
the latest of a long history are never dropped.
"""

from __future__ import annotations

import hashlib

import msgspec

from worker.codes import DeadLetterCode
from worker.contracts.encode import encode, record_size
from worker.contracts.timestamps import rfc3339
from worker.contracts.verdict import SourceRef
from worker.errors import UnreadableRecord
from worker.records import Header, Headers, Output, Record

# One failure to read a record, and its form as record headers: text, in one namespace.

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


FIRST_BYTES = 256
"""Of a value that is too large to copy, so that a person sees what it was."""
_MAX_DETAIL_CHARS = 500


class DeadLetter(Failure, frozen=True, kw_only=True):
    """What the headers of a dead letter say, as tools show it."""

    position: SourceRef | None = None
    """Where the dead letter itself lies."""
    earlier: tuple[Failure, ...] = ()
    """Failures of the same record before this one, oldest first."""


class RecordReference(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a dead letter whose record was too large to copy."""

    source: SourceRef
    """Where the record can be read, while the input topic keeps it."""
    size: int
    """Bytes of its value."""
    sha256: str
    """Digest of its value."""
    first_bytes: bytes
    """The first 256 bytes of its value, in base64."""
    key_omitted: bool
    """Whether the key was left out too."""
    headers_omitted: int
    """Headers left out too."""


def describe(record: Record, error: UnreadableRecord, *, worker_build: str, now: float) -> Failure:
    """The failure of a record; ``now`` is in seconds since the epoch."""
    return Failure(
        code=str(error.code),
        field=error.field,
        detail=error.detail[:_MAX_DETAIL_CHARS],
        source=_position(record),
        failed_at=rfc3339(now),
        worker_build=worker_build,
        null_value=record.value is None,
        by_reference=False,
    )


def dead_letter_output(
    record: Record,
    error: UnreadableRecord,
    *,
    topic: str,
    max_bytes: int,
    worker_build: str,
    now: float,
) -> Output:
    """The dead letter of ``record``: key, value and headers as they came, and the reason.

    ``max_bytes`` is what the topic accepts as one record. A record that outgrows it is referred
    to; its key and headers are left out too where they alone would outgrow it.
    """
    failure = describe(record, error, worker_build=worker_build, now=now)
    headers = bounded_history(record.headers)
    value = b"" if record.value is None else record.value
    output = Output(
        topic=topic, key=record.key, value=value, headers=headers + write_failure(failure)
    )
    if record_size(output) <= max_bytes:
        return output
    failure = msgspec.structs.replace(failure, by_reference=True)
    output = Output(
        topic=topic,
        key=record.key,
        value=encode(_reference(record, key_omitted=False, headers_omitted=0)),
        headers=headers + write_failure(failure),
    )
    if record_size(output) <= max_bytes:
        return output
    return dead_letter_reference(record, error, topic=topic, worker_build=worker_build, now=now)


def dead_letter_reference(
    record: Record, error: UnreadableRecord, *, topic: str, worker_build: str, now: float
) -> Output:
    """A dead letter that only refers to ``record``: of its bytes it looks at length and digest."""
    failure = msgspec.structs.replace(
        describe(record, error, worker_build=worker_build, now=now), by_reference=True
    )
    reference = _reference(
        record, key_omitted=record.key is not None, headers_omitted=len(record.headers)
    )
    return Output(topic=topic, key=None, value=encode(reference), headers=write_failure(failure))


def parse_dead_letter(record: Record) -> DeadLetter:
    """Read the headers of a record of the dead-letter topic.

    Raises:
        UnreadableRecord: the record is no dead letter; the field is the header at fault.
    """
    starts = failure_starts(record.headers)
    if not starts:
        raise UnreadableRecord(
            DeadLetterCode.MISSING_FIELD,
            field=Header.DEAD_LETTER_CODE,
            detail="the record is no dead letter",
        )
    failures = []
    for start, end in zip(starts, [*starts[1:], len(record.headers)], strict=True):
        try:
            failures.append(read_failure(record.headers[start:end]))
        except UnreadableRecord:
            if start == starts[-1]:
                raise
    *earlier, last = failures
    return DeadLetter(
        **{name: getattr(last, name) for name in Failure.__struct_fields__},
        position=_position(record),
        earlier=tuple(earlier),
    )


def original(record: Record, *, topic: str) -> Output:
    """The record that the dead letter ``record`` was made of, to be produced to ``topic``.

    Raises:
        UnreadableRecord: no dead letter, or one by reference: its record is where it says.
    """
    letter = parse_dead_letter(record)
    if letter.by_reference:
        raise UnreadableRecord(
            DeadLetterCode.TOO_LARGE,
            field=Header.DEAD_LETTER_BY_REFERENCE,
            detail=f"the record was not copied; read it at {letter.source.topic}, "
            f"partition {letter.source.partition}, offset {letter.source.offset}",
        )
    return Output(
        topic=topic,
        key=record.key,
        value=None if letter.null_value else record.value,
        headers=record.headers[: failure_starts(record.headers)[-1]],
    )


def _reference(record: Record, *, key_omitted: bool, headers_omitted: int) -> RecordReference:
    value = record.value or b""
    return RecordReference(
        source=_position(record),
        size=len(value),
        sha256=hashlib.sha256(value).hexdigest(),
        first_bytes=value[:FIRST_BYTES],
        key_omitted=key_omitted,
        headers_omitted=headers_omitted,
    )


def _position(record: Record) -> SourceRef:
    return SourceRef(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
    )
