"""What a reasoning trace costs beside the verdict it follows."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from worker.bench.engine.clock import take
from worker.bench.engine.verdicts import Rig
from worker.bench.engine.workload import Lengths, Workload
from worker.judge.engine.keys import OwnKV
from worker.judge.engine.slots import Slots

SWITCH = 10
"""Tokens behind ``/think`` that differ from the verdict's prompt."""


class Overhead(NamedTuple):
    """Milliseconds a trace adds to a verdict (p50, p95), and how many times the verdict that is."""

    p50: float
    p95: float
    times: float


def alone(rig: Rig, tokens: int, rounds: int) -> Overhead:
    """One event at a time: its verdict, then its trace."""
    own, verdicts = _verdicts(rig, 1, rounds)
    traces = [take(lambda: _write(rig, own, tokens)).wall for _ in range(rounds)]
    return _overhead(traces, verdicts)


def under_load(rig: Rig, tokens: int, rounds: int, *, together: int = 8) -> Overhead:
    """``together`` traces at a time, and a verdict forward between every two steps.

    The overhead is a trace's own: from its start to its end, while verdicts go on beside it.
    """
    own, verdicts = _verdicts(rig, together, rounds)
    work = Workload(rig.vocabulary, Lengths(320), seed=2)
    rows = work.rows(rig.prefixes(), together)

    def call() -> None:
        _write(rig, own, tokens, between=lambda: rig.forward.run(rows))

    return _overhead([take(call).wall for _ in range(rounds)], verdicts)


def _verdicts(rig: Rig, count: int, rounds: int) -> tuple[list[OwnKV], list[float]]:
    rows = Workload(rig.vocabulary, Lengths(320)).rows(rig.prefixes(), count)
    keep = [True] * count
    seconds = [take(lambda: rig.forward.run(rows, keep=keep)).wall for _ in range(rounds + 1)]
    own = [each for each in rig.forward.run(rows, keep=keep).kept if each is not None]
    return own, seconds[1:]


def _write(rig: Rig, rows: list[OwnKV], tokens: int, between: object = None) -> None:
    slots = Slots(rig.forward, rows=len(rows))
    for own in rows:
        slots.add(own, SWITCH + tokens)
    count = len(rows)
    logits = slots.extend([tuple(range(16, 16 + SWITCH))] * count, [1] * count)
    for _ in range(tokens - 1):
        if callable(between):
            between()
        written = [(int(each[-1].argmax()),) for each in logits]
        logits = slots.extend(written, [1] * count)


def _overhead(traces: list[float], verdicts: list[float]) -> Overhead:
    ordered = sorted(traces)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    p50, verdict = statistics.median(traces), statistics.median(verdicts)
    return Overhead(p50 * 1e3, p95 * 1e3, p50 / verdict)
