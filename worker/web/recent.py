"""The last minute and the last verdicts, in bounded memory: what the console shows."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from worker.clock import Clock
from worker.contracts.verdict import Verdict
from worker.guard.taxonomy import canonical_category

WINDOW_S = 60
KEPT = 50
MAX_TEXT = 280
FINDABLE = 1000
"""Verdicts that can be found by the id of their event."""
STEP = 1.1
"""Times are counted in steps of a tenth."""


class VerdictRow(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as the console lists it. ``text`` and ``trace`` are empty unless switched on.

    ``side`` is whose words decided, ``user`` or ``response``: ``score`` and ``text`` are theirs.
    """

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
    side: str = ""
    score: float | None = None
    total_ms: float = 0.0
    text: str = ""
    trace: str = ""


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is no event: when, why, and where it stands in its input topic."""

    at: float
    code: str
    topic: str
    partition: int
    offset: int


class CodeCount(msgspec.Struct, frozen=True, kw_only=True):
    """How often a reason for undecided, or a code of a dead letter, was given."""

    code: str
    total: int
    last_minute: int


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
    ``prefiltered`` are events that a policy's own lists decided, in the last minute. ``p50_ms`` and
    ``p95_ms``: half, and 95 of 100 events of the last minute took no longer, within a tenth.
    ``undecided`` and ``dead_letter_codes`` have the most frequent first.
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
    p50_ms: float | None = None
    p95_ms: float | None = None
    undecided: tuple[CodeCount, ...] = ()
    dead_letter_codes: tuple[CodeCount, ...] = ()
    last_dead_letters: tuple[DeadLetterRow, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()
    quarantine: tuple[VerdictRow, ...] = ()


class _Second:
    __slots__ = ("at", "cached", "codes", "counts", "events", "listed", "shed", "thought", "took")

    def __init__(self, at: int) -> None:
        self.at = at
        self.events = self.thought = self.shed = self.cached = self.listed = 0
        self.counts: Counter[str] = Counter()
        self.codes: Counter[tuple[str, str]] = Counter()
        self.took: Counter[int] = Counter()


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
        self._letters: deque[DeadLetterRow] = deque(maxlen=KEPT)
        self._found: OrderedDict[str, _Seen] = OrderedDict()
        self._totals: Counter[tuple[str, str]] = Counter()
        self._codes: Counter[tuple[str, str]] = Counter()
        # Whoever looks first sees the batches since the start, not a dash.
        self._batches = deque([(clock.monotonic(), 0, 0.0)], maxlen=WINDOW_S + 1)
        self._events = self._dead_letters = self._held = 0

    def add(
        self,
        verdict: Verdict,
        *,
        held: bool = False,
        text: str = "",
        response: str = "",
        traces: Sequence[str] = (),
    ) -> None:
        """Count a verdict and remember it. Content is dropped here unless it is switched on.

        ``text`` is the user's, ``response`` the model's; what decided is kept.
        """
        second = self._second()
        policy = verdict.policy.name
        second.events += 1
        second.counts[policy] += 1
        self._events += 1
        self._totals[policy, verdict.outcome] += 1
        second.cached += verdict.cached
        second.listed += verdict.decided_by == "prefilter"
        second.took[_step(verdict.timings_ms.total)] += 1
        if verdict.undecided_reason is not None:
            self._count(second, "undecided", verdict.undecided_reason)
        if verdict.reasoning is not None:
            if verdict.reasoning.trace:
                second.thought += 1
            elif verdict.reasoning.skipped:
                second.shed += 1
        show = self._show_content
        seen = _Seen(
            self._clock.time(),
            verdict,
            (response if _side(verdict) == "response" else text)[:MAX_TEXT] if show else "",
            "\n".join(traces)[: 4 * MAX_TEXT] if show else "",
        )
        self._verdicts.append(seen)
        if held:
            self._held += 1
            self._quarantine.append(seen)

        self._found[verdict.event_id] = seen._replace(text="", trace="")
        self._found.move_to_end(verdict.event_id)
        if len(self._found) > FINDABLE:
            self._found.popitem(last=False)

    def find(self, event_id: str) -> VerdictRow | None:
        """The last verdict on an event, among the last ``FINDABLE`` of this worker."""
        seen = self._found.get(event_id)
        return None if seen is None else _row(seen, self._show_content)

    def add_dead_letter(self, code: str, topic: str, partition: int, offset: int) -> None:
        """Count a record that is no event, and remember where it stands."""
        self._dead_letters += 1
        self._count(self._second(), "dead letter", code)
        self._letters.append(
            DeadLetterRow(
                at=self._clock.time(), code=code, topic=topic, partition=partition, offset=offset
            )
        )

    def _count(self, second: _Second, kind: str, code: str) -> None:
        second.codes[kind, code] += 1
        self._codes[kind, code] += 1

    def _by_code(self, kind: str, seconds: Iterable[_Second]) -> tuple[CodeCount, ...]:
        lately: Counter[tuple[str, str]] = sum((each.codes for each in seconds), Counter())
        return tuple(
            CodeCount(code=code, total=total, last_minute=lately[each, code])
            for (each, code), total in self._codes.most_common()
            if each == kind
        )

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
        took: Counter[int] = sum((each.took for each in by_second.values()), Counter())
        contexts = self._mean_contexts()
        show = self._show_content
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
            p50_ms=_quantile(took, 0.5),
            p95_ms=_quantile(took, 0.95),
            undecided=self._by_code("undecided", by_second.values()),
            dead_letter_codes=self._by_code("dead letter", by_second.values()),
            last_dead_letters=tuple(reversed(self._letters)),
            verdicts=tuple(_row(seen, show) for seen in reversed(self._verdicts)),
            quarantine=tuple(_row(seen, show) for seen in reversed(self._quarantine)),
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


def _side(verdict: Verdict) -> str:
    """Whose words the verdict is about: the response's where they are what is unsafe."""
    user, response = verdict.user, verdict.response
    if response is None:
        return "user" if user is not None else ""
    return "response" if user is None or response.score > user.score else "user"


def _step(milliseconds: float) -> int:
    return math.ceil(math.log(max(milliseconds, 0.1), STEP))


def _quantile(took: Counter[int], share: float) -> float | None:
    """The upper end of the step in which ``share`` of all events have ended."""
    left = share * took.total()
    for step in sorted(took):
        left -= took[step]
        if left <= 0:
            return float(STEP**step)
    return None


def _row(seen: _Seen, show_content: bool) -> VerdictRow:
    verdict = seen.verdict
    side = _side(verdict)
    judged = verdict.response if side == "response" else verdict.user
    # A free phrase of a policy may be a user's own words: masked as in the log.
    names = [
        each.name if show_content else canonical_category(each.name) or "custom"
        for each in verdict.categories
    ]
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
        categories=tuple(dict.fromkeys(names)),
        side=side,
        score=judged.score if judged else None,
        total_ms=verdict.timings_ms.total,
        text=seen.text,
        trace=seen.trace,
    )
