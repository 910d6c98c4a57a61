"""Records of a log, as every room sees them. Nothing here knows what a record means."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

Headers = tuple[tuple[str, bytes | None], ...]
"""Kafka record headers: ordered, names may repeat."""


class TopicPartition(NamedTuple):
    """One ordered sequence of records."""

    topic: str
    partition: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One input record, bytes untouched. ``timestamp`` is milliseconds since the epoch.

    ``unreadable`` says why the log could not parse it, where it could not: what is known of it
    stands in the other fields, and nothing of it may be taken for an event.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    unreadable: str = ""

    @property
    def source(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One record to publish in the transaction that commits its input's offset."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Header:
    """Record headers: W3C trace context in and out, and the dead letter's one namespace."""

    TRACEPARENT: Final = "traceparent"
    TRACESTATE: Final = "tracestate"
    DEAD_LETTER_PREFIX: Final = "moderation.dead-letter."
    DEAD_LETTER_CODE: Final = "moderation.dead-letter.code"
    DEAD_LETTER_FIELD: Final = "moderation.dead-letter.field"
    DEAD_LETTER_DETAIL: Final = "moderation.dead-letter.detail"
    DEAD_LETTER_TOPIC: Final = "moderation.dead-letter.topic"
    DEAD_LETTER_PARTITION: Final = "moderation.dead-letter.partition"
    DEAD_LETTER_OFFSET: Final = "moderation.dead-letter.offset"
    DEAD_LETTER_TIMESTAMP: Final = "moderation.dead-letter.timestamp"
    DEAD_LETTER_FAILED_AT: Final = "moderation.dead-letter.failed-at"
    DEAD_LETTER_WORKER_BUILD: Final = "moderation.dead-letter.worker-build"
    DEAD_LETTER_NULL_VALUE: Final = "moderation.dead-letter.null-value"
    DEAD_LETTER_BY_REFERENCE: Final = "moderation.dead-letter.by-reference"
