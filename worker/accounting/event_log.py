"""One line in the log for every event: who, under which policy, what came of it, how long it took.

Ids and coordinates, codes and numbers; no text, no trace, no image reference.
"""

from __future__ import annotations

import logging
import math
import zlib

from worker.contracts.verdict import CategoryVerdict, Verdict
from worker.errors import UnreadableRecord
from worker.guard.taxonomy import canonical_category
from worker.records import Record
from worker.telemetry.logs import EVENT_LOGGER
from worker.telemetry.names import Canonical, LogField

Value = str | int | float | bool | tuple[str, ...]
MAX_ID_LENGTH = 128
events = logging.getLogger(EVENT_LOGGER)


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
    user, response, images, context = (
        verdict.user,
        verdict.response,
        verdict.images,
        verdict.context,
    )
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
        Canonical.QUEUE_MS: _rounded(times.queue),
        Canonical.JUDGE_MS: _rounded(times.judge),
        Canonical.TOTAL_MS: _rounded(times.total),
    }
    # Plain statements: this runs once an event, and a table of optional fields costs twice as much.
    if verdict.tenant:
        line[Canonical.TENANT] = verdict.tenant[:MAX_ID_LENGTH]
    if verdict.undecided_reason is not None:
        line[Canonical.REASON] = verdict.undecided_reason
    if verdict.categories:
        line[Canonical.CATEGORIES] = tuple(map(_category, verdict.categories))
    if verdict.cached:
        line[Canonical.CACHED] = True
    if user is not None:
        line[Canonical.USER_SCORE] = _rounded(user.score, 1e4)
    if response is not None:
        line[Canonical.RESPONSE_SCORE] = _rounded(response.score, 1e4)
    if think is not None:
        line[Canonical.THINK] = think.mode
        if think.skipped is not None:
            line[Canonical.THINK_SKIPPED] = think.skipped
    if images:
        line[Canonical.IMAGES] = len(images)
        errors = tuple(each.error for each in images if each.error)
        if errors:
            line[Canonical.IMAGE_ERRORS] = errors
    if context.included:
        line[Canonical.CONTEXT_INCLUDED] = context.included
    if context.omitted:
        line[Canonical.CONTEXT_OMITTED] = context.omitted
    if verdict.neutralised:
        line[Canonical.NEUTRALISED] = len(verdict.neutralised)
    if verdict.folded:
        line[Canonical.FOLDED] = verdict.folded
    if tokens:
        line[Canonical.TOKENS] = tokens
    if bytes_in:
        line[Canonical.BYTES_IN] = bytes_in
    if bytes_out:
        line[Canonical.BYTES_OUT] = bytes_out
    if times.fetch:
        line[Canonical.FETCH_MS] = _rounded(times.fetch)
    if age_ms is not None:
        line[Canonical.AGE_MS] = _rounded(age_ms)
    return line


def _rounded(value: float, parts: float = 1e3) -> float:
    """To a thousandth; ``round`` goes through a string and takes four times as long."""
    return math.floor(value * parts + 0.5) / parts


def _category(category: CategoryVerdict) -> str:
    """A built-in name, or ``custom``: a free phrase may be the user's own words."""
    return canonical_category(category.name) or "custom"


def log_event(
    verdict: Verdict,
    *,
    share: float = 1.0,
    bytes_in: int = 0,
    bytes_out: int = 0,
    tokens: int = 0,
    age_ms: float | None = None,
    logger: logging.Logger = events,
) -> None:
    """Write the line of a judged event, if it is in the ``share`` of events that leave one.

    An event is in or out by its verdict's id, so that one that is judged again decides alike. The
    line says the share, where it is not the whole: a sum over lines has to be divided by it.
    """
    if not logger.isEnabledFor(logging.INFO) or not _in(share, verdict.verdict_id):
        return
    line = canonical_line(
        verdict, bytes_in=bytes_in, bytes_out=bytes_out, tokens=tokens, age_ms=age_ms
    )
    if share < 1:
        line[Canonical.SAMPLE_RATIO] = share
    _write(logger, "event judged", line)


def _in(share: float, verdict_id: str) -> bool:
    return share >= 1 or zlib.crc32(verdict_id.encode()) < share * 2**32


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
