"""One line in the log for every event: who, under which policy, what came of it, how long it took.

Ids and coordinates, codes and numbers; no text, no trace, no image reference.
"""

from __future__ import annotations

import logging

from worker.contracts.verdict import Verdict
from worker.errors import UnreadableRecord
from worker.stream.base import Record
from worker.telemetry.names import Canonical, LogField

Value = str | int | float | bool | tuple[str, ...]
MAX_ID_LENGTH = 128
events = logging.getLogger("worker.event")


def canonical_line(
    verdict: Verdict,
    *,
    bytes_in: int = 0,
    bytes_out: int = 0,
    tokens: int = 0,
    age_ms: float | None = None,
) -> dict[str, Value]:
    """The line's fields; what is absent or zero by nature is left out.

    ``bytes_in`` is the input record, ``bytes_out`` everything published for it; ``age_ms`` is from
    the record's timestamp to the verdict.
    """
    source, times, think = verdict.source, verdict.timings_ms, verdict.reasoning
    optional: dict[str, Value | None] = {
        Canonical.TENANT: _id(verdict.tenant),
        Canonical.SHADOW_OF: _id(verdict.shadow_of),
        Canonical.REASON: verdict.undecided_reason,
        Canonical.CATEGORIES: tuple(each.name for each in verdict.categories) or None,
        Canonical.CACHED: verdict.cached or None,
        Canonical.USER_SCORE: round(verdict.user.score, 4) if verdict.user else None,
        Canonical.RESPONSE_SCORE: round(verdict.response.score, 4) if verdict.response else None,
        Canonical.THINK: think.mode if think else None,
        Canonical.THINK_SKIPPED: think.skipped if think else None,
        Canonical.IMAGES: len(verdict.images) or None,
        Canonical.IMAGE_ERRORS: tuple(each.error for each in verdict.images if each.error) or None,
        Canonical.CONTEXT_INCLUDED: verdict.context.included or None,
        Canonical.CONTEXT_OMITTED: verdict.context.omitted or None,
        Canonical.NEUTRALISED: len(verdict.neutralised) or None,
        Canonical.TOKENS: tokens or None,
        Canonical.BYTES_IN: bytes_in or None,
        Canonical.BYTES_OUT: bytes_out or None,
        Canonical.FETCH_MS: round(times.fetch, 3) or None,
        Canonical.AGE_MS: None if age_ms is None else round(age_ms, 3),
    }
    line: dict[str, Value] = {
        Canonical.VERDICT_ID: verdict.verdict_id,
        Canonical.EVENT_ID: verdict.event_id[:MAX_ID_LENGTH],
        Canonical.CONVERSATION_ID: verdict.conversation_id[:MAX_ID_LENGTH],
        Canonical.TOPIC: source.topic,
        Canonical.PARTITION: source.partition,
        Canonical.OFFSET: source.offset,
        Canonical.KIND: verdict.kind,
        Canonical.POLICY: verdict.policy.name,
        Canonical.POLICY_VERSION: verdict.policy.version,
        Canonical.OUTCOME: verdict.outcome,
        Canonical.ACTION: verdict.action,
        Canonical.DECIDED_BY: verdict.decided_by,
        Canonical.ATTEMPTS: verdict.attempts,
        Canonical.QUEUE_MS: round(times.queue, 3),
        Canonical.JUDGE_MS: round(times.judge, 3),
        Canonical.TOTAL_MS: round(times.total, 3),
    }
    line.update((key, value) for key, value in optional.items() if value is not None)
    return line


def _id(value: str | None) -> str | None:
    return value[:MAX_ID_LENGTH] if value else None


def log_event(
    verdict: Verdict,
    *,
    bytes_in: int = 0,
    bytes_out: int = 0,
    tokens: int = 0,
    age_ms: float | None = None,
    logger: logging.Logger = events,
) -> None:
    """Write the line of a judged event."""
    if logger.isEnabledFor(logging.INFO):
        line = canonical_line(
            verdict, bytes_in=bytes_in, bytes_out=bytes_out, tokens=tokens, age_ms=age_ms
        )
        _write(logger, "event judged", line)


def log_dead_letter(
    record: Record, error: UnreadableRecord, *, logger: logging.Logger = events
) -> None:
    """Write the line of a record that is no event. ``field`` is left out: it may be the user's."""
    if not logger.isEnabledFor(logging.INFO):
        return
    line: dict[str, Value] = {
        Canonical.TOPIC: record.topic,
        Canonical.PARTITION: record.partition,
        Canonical.OFFSET: record.offset,
        Canonical.CODE: str(error.code),
        Canonical.BYTES_IN: len(record.value or b""),
    }
    _write(logger, "record dead-lettered", line)


def _write(logger: logging.Logger, message: str, line: dict[str, Value]) -> None:
    # Without logger.info, which walks the stack for a file and a line that nobody prints.
    record = logging.LogRecord(logger.name, logging.INFO, "", 0, message, None, None)
    record.__dict__[LogField.EVENT] = line
    logger.handle(record)
