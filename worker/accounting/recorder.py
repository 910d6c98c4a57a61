"""What is kept of every finished record: metrics, its line in the log, the recent list."""

from __future__ import annotations

from collections.abc import Callable

from worker.accounting.event_log import log_dead_letter, log_event
from worker.clock import Clock
from worker.contracts.verdict import Verdict
from worker.processing.processor import Processed
from worker.settings import EventLog
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

EVERY_EVENT = EventLog()

Watcher = Callable[[Processed], None]


class Accounts:
    """The pipeline's recorder. ``watch`` is told of every record too (the console)."""

    def __init__(self, clock: Clock, watch: Watcher, event_log: EventLog = EVERY_EVENT) -> None:
        self._clock = clock
        self._shares = event_log
        self._watch = watch

    def __call__(self, processed: Processed) -> None:
        record = processed.record
        if processed.unreadable is not None:
            code = str(processed.unreadable.code)
            instruments.dead_letters.add(1, {Attribute.DEAD_LETTER_CODE: code})
            log_dead_letter(record, processed.unreadable)
        elif processed.evaluation is not None:
            verdict = processed.evaluation.verdict
            _measure(verdict)
            age_s = self._clock.time() - record.timestamp / 1e3
            instruments.record_to_verdict.record(max(0.0, age_s), {Attribute.TOPIC: record.topic})
            log_event(
                verdict,
                share=getattr(self._shares, verdict.outcome),
                bytes_in=len(record.value or b""),
                bytes_out=processed.bytes_out,
                tokens=processed.evaluation.tokens,
                age_ms=age_s * 1e3,
            )
        self._watch(processed)


def _measure(verdict: Verdict) -> None:
    policy, outcome = verdict.policy.name, verdict.outcome
    decided = {
        Attribute.POLICY: policy,
        Attribute.OUTCOME: outcome,
        Attribute.ACTION: verdict.action,
        Attribute.REASON: verdict.undecided_reason or "",
    }
    instruments.events.add(1, decided)
    instruments.event_duration.record(
        verdict.timings_ms.total / 1e3, {Attribute.POLICY: policy, Attribute.OUTCOME: outcome}
    )
