"""DeadLetter v1: the record that could not be read, untouched, and headers that say why.

All of ours stand under ``moderation.dead-letter.`` behind the record's own headers, as text. A
record that is dead-lettered again keeps what stood there: the new ones follow, and the first and
the latest of a long history are never dropped.
"""

from __future__ import annotations

import hashlib

import msgspec

from worker.contracts.codes import DeadLetterCode
from worker.contracts.encode import encode
from worker.contracts.failure import (
    Failure,
    bounded_history,
    failure_starts,
    read_failure,
    write_failure,
)
from worker.contracts.records import record_size
from worker.contracts.timestamps import rfc3339
from worker.contracts.verdict import SourceRef
from worker.errors import UnreadableRecord
from worker.stream.base import Output, Record
from worker.telemetry.names import Header

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
