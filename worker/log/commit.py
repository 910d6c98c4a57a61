"""Commits of one lane: whatever of its prefix is complete, one transaction after the other."""

from __future__ import annotations

from collections.abc import Callable

from worker.clock import Clock
from worker.log.base import Log
from worker.log.partition import Lane, Slot
from worker.records import Output
from worker.telemetry.instruments import commit_duration, commits
from worker.telemetry.names import Attribute
from worker.telemetry.tracing import send_span

MAX_EVENTS = 2000
"""Events in one transaction at most."""
MAX_BYTES = 16 * 1024 * 1024
"""Input bytes in one transaction at most (or one record), so that transactions stay short."""


class Commits:
    """Takes complete prefixes to the log. While one is under way the next one gathers."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        release: Callable[[Slot], None],
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._log = log
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
                while taken := lane.window.take(MAX_EVENTS, MAX_BYTES):
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
        labels, result = {Attribute.TOPIC: lane.source.topic}, "failed"
        try:
            with send_span([slot.outputs for slot in taken if slot.outputs]):
                await self._log.commit(lane.claim, outputs, next_offset, mark)
            result = "committed"
        finally:
            lane.committing = False
            commits.add(1, {**labels, Attribute.RESULT: result})
        now = self._clock.monotonic()
        lane.committed, lane.mark, lane.progressed_at = next_offset, mark, now
        self.events += len(taken)
        self.last_at = now
        commit_duration.record(now - started, labels)
        for slot in taken:
            self._release(slot)
        self._changed()
