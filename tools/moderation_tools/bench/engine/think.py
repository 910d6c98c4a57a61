"""What a reasoning trace costs beside the verdict it follows."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

from moderation_tools.bench.engine.clock import now, take
from moderation_tools.bench.engine.load import Arrivals
from moderation_tools.bench.engine.verdicts import Rig
from moderation_tools.bench.engine.workload import Lengths, Workload
from worker.judge.engine.decode_batch import DecodeBatch
from worker.judge.engine.kv_cache import SequenceKV

SWITCH = 10
"""Tokens behind ``/think`` that differ from the verdict's prompt."""
LOAD = 0.5
"""Share of the verdicts that the engine could give while it writes no traces."""


class Overhead(NamedTuple):
    """Milliseconds a trace adds to a verdict (p50, p95), and how many times the verdict that is."""

    p50: float
    p95: float
    times: float


def alone(rig: Rig, tokens: int, turns: int) -> Overhead:
    """One event at a time: its verdict, then its trace."""
    own, verdicts = _verdicts(rig, 1, turns)
    traces = [take(lambda: write(rig, own, tokens)) for _ in range(turns)]
    return _overhead(traces, verdicts)


def under_load(rig: Rig, tokens: int, turns: int, *, together: int = 8) -> Overhead:
    """``together`` traces at a time, while verdicts go on at half of the rate that is possible.

    As in the worker, what has arrived is judged between every two steps. The overhead is a trace's
    own, from its start to its end, and it is compared with the verdict of one event alone.
    """
    own, crowd = _verdicts(rig, together, turns)
    rate = LOAD * together / statistics.median(crowd)
    _, verdicts = _verdicts(rig, 1, turns)
    rows = Workload(rig.vocabulary, Lengths(320), seed=2).rows(rig.prefixes(), together)

    def call() -> None:
        arrivals = Arrivals(rate, now)

        def judge() -> None:
            waiting = len(arrivals.take(together))
            if waiting:
                rig.forward.run(rows[:waiting], keep=[True] * waiting)

        write(rig, own, tokens, between=judge)

    return _overhead([take(call) for _ in range(turns)], verdicts)


def write(
    rig: Rig, rows: list[SequenceKV], tokens: int, between: Callable[[], None] = lambda: None
) -> None:
    """Traces of ``tokens`` behind all rows, a step at a time."""
    slots = DecodeBatch(rig.forward, least=len(rows))
    for own in rows:
        slots.add(own, SWITCH + tokens)
    count = len(rows)
    logits = slots.extend([tuple(range(16, 16 + SWITCH))] * count, [1] * count)
    for _ in range(tokens - 1):
        between()
        written = [(int(each[-1].argmax()),) for each in logits]
        logits = slots.extend(written, [1] * count)


def _verdicts(rig: Rig, count: int, turns: int) -> tuple[list[SequenceKV], list[float]]:
    rows = Workload(rig.vocabulary, Lengths(320)).rows(rig.prefixes(), count)
    keep = [True] * count
    seconds = [take(lambda: rig.forward.run(rows, keep=keep)) for _ in range(turns + 1)]
    own = [each for each in rig.forward.run(rows, keep=keep).kept if each is not None]
    return own, seconds[1:]


def _overhead(traces: list[float], verdicts: list[float]) -> Overhead:
    ordered = sorted(traces)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    p50, verdict = statistics.median(traces), statistics.median(verdicts)
    return Overhead(p50 * 1e3, p95 * 1e3, p50 / verdict)
