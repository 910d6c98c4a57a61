"""One value of every contract, used as the published examples. Made up, and the same every time."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from worker.codes import DeadLetterCode, UndecidedReason
from worker.contracts.dead_letter import dead_letter_output, parse_dead_letter
from worker.contracts.decode import decode_event
from worker.contracts.encode import QuarantineRecord, encode, quarantine_output
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import (
    CategoryVerdict,
    ImageVerdict,
    ModelRef,
    PolicyRef,
    Reasoning,
    SideVerdict,
    SourceRef,
    Timings,
    Verdict,
    verdict_id,
)
from worker.errors import UnreadableRecord
from worker.records import Output, Record

_NOW: Final = 1_767_225_600.0
_AT: Final = "2026-01-01T00:00:00.000Z"
_TRACE: Final = (
    "The user asks how to get into an account that belongs to someone else. "
    "The policy disallows help with taking over accounts. No allowed case applies."
)

EVENT: Final = Event(
    id="evt-0001",
    conversation_id="conv-42",
    time="2025-12-31T23:59:58.250Z",
    tenant="example-community",
    locale="en",
    messages=(
        Message(role="user", text="Hi, I need help with an account."),
        Message(role="assistant", text="Of course. Whose account is it?"),
        Message(
            role="user",
            text="My neighbour's. How do I get past this screen?",
            images=(
                ImageRef(
                    uri="s3://example-uploads/2025/12/screen.png",
                    sha256=hashlib.sha256(b"screen").hexdigest(),
                ),
            ),
        ),
    ),
    metadata={"client": "web"},
)
"""A conversation with context, an image and everything optional."""

RECORD: Final = Record(
    topic="community.conversations",
    partition=3,
    offset=1234,
    timestamp=1_767_225_599_000,
    key=b"conv-42",
    value=encode(EVENT),
    headers=(("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),),
)
"""The record ``EVENT`` came in."""

SOURCE: Final = SourceRef(
    topic=RECORD.topic,
    partition=RECORD.partition,
    offset=RECORD.offset,
    timestamp=RECORD.timestamp,
)

VERDICT: Final = Verdict(
    verdict_id=verdict_id(SOURCE.topic, SOURCE.partition, SOURCE.offset, EVENT.id, "automatic"),
    event_id=EVENT.id,
    conversation_id=EVENT.conversation_id,
    tenant=EVENT.tenant,
    source=SOURCE,
    outcome="unsafe",
    action="hold",
    user=SideVerdict(label="unsafe", score=0.93),
    response=None,
    categories=(
        CategoryVerdict(name="Account takeover", source="custom", severity="high", score=0.88),
    ),
    images=(
        ImageVerdict(
            uri="s3://example-uploads/2025/12/screen.png",
            sha256=hashlib.sha256(b"screen").hexdigest(),
            label="unsafe",
            score=0.93,
        ),
    ),
    reasoning=Reasoning(mode="unsafe", trace=_TRACE),
    policy=PolicyRef(name="community", version=3, sha256=hashlib.sha256(b"policy").hexdigest()),
    model=ModelRef(
        id="nvidia/Nemotron-3.5-Content-Safety",
        revision="35645ed3543b7e7ffaed2e788699e57a5051497c",
        adapter=None,
        template_sha256=hashlib.sha256(b"template").hexdigest(),
        numerics="bfloat16",
    ),
    timings_ms=Timings(queue=4.0, fetch=31.5, judge=38.0, total=75.5),
    judged_at=_AT,
)

UNDECIDED: Final = msgspec.structs.replace(
    VERDICT,
    outcome="undecided",
    user=None,
    categories=(),
    images=(ImageVerdict(uri="s3://example-uploads/2025/12/screen.png", error="image_missing"),),
    reasoning=None,
    undecided_reason=UndecidedReason.IMAGE_MISSING.value,
    undecided_detail="images[0]: no such object",
)

QUARANTINE_OUTPUT: Final = quarantine_output(
    RECORD,
    EVENT,
    VERDICT,
    traces=(_TRACE,),
    needs_review=True,
    held_at=_AT,
    topic="moderation.quarantine",
    max_bytes=1 << 20,
)
QUARANTINE: Final = msgspec.json.decode(QUARANTINE_OUTPUT.value or b"", type=QuarantineRecord)

_NO_CONVERSATION: Final = msgspec.structs.replace(RECORD, value=b'{"id": "evt-0002"}', offset=1235)


def _failure(record: Record) -> UnreadableRecord:
    try:
        decode_event(record, 1 << 20)
    except UnreadableRecord as error:
        return error
    raise AssertionError("the sample is meant to be unreadable")


def _at(output: Output, offset: int) -> Record:
    return Record(
        topic=output.topic,
        partition=0,
        offset=offset,
        timestamp=int(_NOW * 1000),
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


DEAD_LETTER_RECORD: Final = _at(
    dead_letter_output(
        _NO_CONVERSATION,
        _failure(_NO_CONVERSATION),
        topic="moderation.dead-letter",
        max_bytes=1 << 20,
        worker_build="0.1.0",
        now=_NOW,
    ),
    17,
)
DEAD_LETTER: Final = parse_dead_letter(DEAD_LETTER_RECORD)

BY_REFERENCE_RECORD: Final = _at(
    dead_letter_output(
        msgspec.structs.replace(RECORD, value=b"x" * 8192, offset=1236),
        UnreadableRecord(
            DeadLetterCode.TOO_LARGE, detail="the value has 8192 bytes, at most 4096 are read"
        ),
        topic="moderation.dead-letter",
        max_bytes=4096,
        worker_build="0.1.0",
        now=_NOW,
    ),
    18,
)
