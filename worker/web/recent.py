"""The last minute and the last verdicts, in bounded memory: what the console shows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from worker.clock import Clock
from worker.contracts.verdict import Verdict

WINDOW_S = 60
KEPT = 50
MAX_TEXT = 280


class VerdictRow(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as the console lists it. ``text`` and ``trace`` are empty unless switched on."""

    at: float
    event_id: str
    conversation_id: str
    policy: str
    version: int
    topic: str
    partition: int
    offset: int
    outcome: str
    action: str
    reason: str = ""
    categories: tuple[str, ...] = ()
    score: float | None = None
    total_ms: float = 0.0
    text: str = ""
    trace: str = ""


class PolicyCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of one policy: since the start, and in the last minute."""

    policy: str
    safe: int = 0
    unsafe: int = 0
    undecided: int = 0
    last_minute: int = 0

    @property
    def total(self) -> int:
        return self.safe + self.unsafe + self.undecided


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """The console's numbers. Rates are of the last minute, ``series`` events of each second of it.

    ``batch_fill`` is contexts in a batch over ``judge.max_batch``; ``think_share`` traces written
    over events, ``cached_share`` those that were judged in an equal one; None where there was none.
    ``prefiltered`` are events that a policy's own lists decided, in the last minute.
    """

    rate: float = 0.0
    series: tuple[int, ...] = ()
    events: int = 0
    dead_letters: int = 0
    held: int = 0
    policies: tuple[PolicyCounts, ...] = ()
    think_share: float | None = None
    think_shed: int = 0
    cached_share: float | None = None
    prefiltered: int = 0
    batch_fill: float | None = None
    batch_contexts: float | None = None
    verdicts: tuple[VerdictRow, ...] = ()
    quarantine: tuple[VerdictRow, ...] = ()


class _Second:
    __slots__ = ("at", "cached", "counts", "events", "listed", "shed", "thought")

    def __init__(self, at: int) -> None:
        self.at = at
        self.events = self.thought = self.shed = self.cached = self.listed = 0
        self.counts: Counter[str] = Counter()


class _Seen(NamedTuple):
    at: float
    verdict: Verdict
    text: str
    trace: str


class Recent:
    """Filled from the event loop, read from the same."""

    def __init__(self, clock: Clock, *, show_content: bool = False, max_batch: int = 0) -> None:
        self._clock = clock
        self._show_content = show_content
        self._max_batch = max_batch
        self._started = int(clock.monotonic())
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_S + 2)
        self._verdicts: deque[_Seen] = deque(maxlen=KEPT)
        self._quarantine: deque[_Seen] = deque(maxlen=KEPT)
        self._totals: Counter[tuple[str, str]] = Counter()
        # Whoever looks first sees the batches since the start, not a dash.
        self._batches = deque([(clock.monotonic(), 0, 0.0)], maxlen=WINDOW_S + 1)
        self._events = self._dead_letters = self._held = 0

    def add(
        self, verdict: Verdict, *, held: bool = False, text: str = "", traces: Sequence[str] = ()
    ) -> None:
        """Count a verdict and remember it. Content is dropped here unless it is switched on."""
        second = self._second()
        policy = verdict.policy.name
        second.events += 1
        second.counts[policy] += 1
        self._events += 1
        self._totals[policy, verdict.outcome] += 1
        second.cached += verdict.cached
        second.listed += verdict.decided_by == "prefilter"
        if verdict.reasoning is not None:
            if verdict.reasoning.trace:
                second.thought += 1
            elif verdict.reasoning.skipped:
                second.shed += 1
        show = self._show_content
        seen = _Seen(
            self._clock.time(),
            verdict,
            text[:MAX_TEXT] if show else "",
            "\n".join(traces)[: 4 * MAX_TEXT] if show else "",
        )
        self._verdicts.append(seen)
        if held:
            self._held += 1
            self._quarantine.append(seen)

    def add_dead_letter(self) -> None:
        """Count a record that is no event."""
        self._dead_letters += 1

    def batches(self, count: int, contexts: float) -> None:
        """Tell the totals of all batches so far; call it whenever a snapshot is made."""
        now = self._clock.monotonic()
        if not self._batches or now - self._batches[-1][0] >= 1:
            self._batches.append((now, count, contexts))

    def activity(self) -> Activity:
        """Everything as of now; newest first."""
        now = int(self._clock.monotonic())
        # Whole seconds only: the one that is running would look like a collapse.
        window = range(now - WINDOW_S, now)
        by_second = {each.at: each for each in self._seconds if each.at in window}
        series = tuple(by_second[at].events if at in by_second else 0 for at in window)
        events = sum(series)
        thought = sum(each.thought for each in by_second.values())
        cached = sum(each.cached for each in by_second.values())
        counts: Counter[str] = sum((each.counts for each in by_second.values()), Counter())
        contexts = self._mean_contexts()
        return Activity(
            # A worker that is younger than the window has had less time for its events.
            rate=events / max(1, min(WINDOW_S, now - self._started)),
            series=series,
            events=self._events,
            dead_letters=self._dead_letters,
            held=self._held,
            policies=tuple(self._policy(name, counts[name]) for name in self._policies()),
            think_share=thought / events if events else None,
            think_shed=sum(each.shed for each in by_second.values()),
            cached_share=cached / events if events else None,
            prefiltered=sum(each.listed for each in by_second.values()),
            batch_contexts=contexts,
            batch_fill=contexts / self._max_batch if contexts and self._max_batch else None,
            verdicts=tuple(_row(seen) for seen in reversed(self._verdicts)),
            quarantine=tuple(_row(seen) for seen in reversed(self._quarantine)),
        )

    def _second(self) -> _Second:
        now = int(self._clock.monotonic())
        if not self._seconds or self._seconds[-1].at != now:
            self._seconds.append(_Second(now))
        return self._seconds[-1]

    def _policies(self) -> list[str]:
        return sorted({policy for policy, _ in self._totals})

    def _policy(self, name: str, last_minute: int) -> PolicyCounts:
        return PolicyCounts(
            policy=name,
            safe=self._totals[name, "safe"],
            unsafe=self._totals[name, "unsafe"],
            undecided=self._totals[name, "undecided"],
            last_minute=last_minute,
        )

    def _mean_contexts(self) -> float | None:
        if len(self._batches) < 2:
            return None
        (_, first, before), (_, last, after) = self._batches[0], self._batches[-1]
        return (after - before) / (last - first) if last > first else None


def _row(seen: _Seen) -> VerdictRow:
    verdict = seen.verdict
    return VerdictRow(
        at=seen.at,
        event_id=verdict.event_id,
        conversation_id=verdict.conversation_id,
        policy=verdict.policy.name,
        version=verdict.policy.version,
        topic=verdict.source.topic,
        partition=verdict.source.partition,
        offset=verdict.source.offset,
        outcome=verdict.outcome,
        action=verdict.action,
        reason=verdict.undecided_reason or "",
        categories=tuple(each.name for each in verdict.categories),
        score=verdict.user.score if verdict.user else None,
        total_ms=verdict.timings_ms.total,
        text=seen.text,
        trace=seen.trace,
    )
