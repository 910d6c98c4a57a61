"""Commits of one lane: whatever of its prefix is complete, one transaction after the other."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.trace import SpanKind

from worker.clock import Clock
from worker.log.base import Log
from worker.log.partition import Lane, Slot
from worker.records import Output
from worker.settings import Stream
from worker.telemetry.event_span import output_contexts, shared_span
from worker.telemetry.instruments import commit_duration, commits
from worker.telemetry.names import Attribute, Span

MAX_BYTES = 16 * 1024 * 1024
"""Input bytes in one transaction at most (or one record), so that transactions stay short."""


class Commits:
    """Takes complete prefixes to the log. While one is under way the next one gathers."""

    def __init__(
        self,
        log: Log,
        settings: Stream,
        clock: Clock,
        release: Callable[[Slot], None],
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._log = log
        self._max_events = settings.commit_max_events
        self._clock = clock
        self._release = release
        self._changed = changed
        self._failed = failed
        self.events = 0
        self.last_at = clock.monotonic()

    async def loop(self, lane: Lane) -> None:
        """Commit what becomes ready until cancelled; a failure ends the process."""
        try:
            while True:
                await lane.ready.wait()
                lane.ready.clear()
                while taken := lane.window.take(self._max_events, MAX_BYTES):
                    await self._commit(lane, taken)
        except Exception as error:
            self._failed(error)

    async def _commit(self, lane: Lane, taken: list[Slot]) -> None:
        next_offset = taken[-1].offset + 1
        outputs: list[Output] = []
        for slot in taken:
            outputs.extend(slot.outputs or ())
        mark = lane.mark_after(next_offset)
        lane.committing = True
        started = self._clock.monotonic()
        contexts = output_contexts(slot.outputs[0] for slot in taken if slot.outputs)
        attributes: dict[str, str | int] = {
            Attribute.SYSTEM: "kafka",
            Attribute.OPERATION_TYPE: "send",
            Attribute.BATCH_SIZE: len(outputs),
        }
        try:
            with shared_span(Span.PUBLISH, contexts, attributes, SpanKind.CLIENT):
                await self._log.commit(lane.claim, outputs, next_offset, mark)
        finally:
            lane.committing = False
        now = self._clock.monotonic()
        lane.committed, lane.mark, lane.progressed_at = next_offset, mark, now
        self.events += len(taken)
        self.last_at = now
        labels = {Attribute.TOPIC: lane.source.topic}
        commits.add(1, labels)
        commit_duration.record(now - started, labels)
        for slot in taken:
            self._release(slot)
        self._changed()
