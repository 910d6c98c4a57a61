"""Latency of the engine at a steady rate of events: what waits is taken when the device is free."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from moderation_tools.bench.engine.against import Served
from moderation_tools.bench.engine.verdicts import Rig
from worker.judge.engine.batch import InputSequence

ALL_AT_ONCE = 1e9
"""A rate per second at which everything waits from the start."""


class Arrivals:
    """Events that arrive at a steady rate from now on, by the wall or by another ``clock``."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._rate, self._clock, self._started, self._taken = per_second, clock, clock(), 0

    def now(self) -> float:
        """Seconds since the first one arrived."""
        return self._clock() - self._started

    def take(self, most: int) -> range:
        """Numbers of the next events that have arrived, ``most`` at most."""
        arrived = int(self.now() * self._rate) + 1
        first, self._taken = self._taken, min(arrived, self._taken + most)
        return range(first, self._taken)

    def due(self, number: int) -> float:
        """When an event arrives, in seconds since the first."""
        return number / self._rate


def at_rate(rig: Rig, rows: list[InputSequence], per_second: float, batch: int) -> Served:
    """Rows that arrive at a steady rate; each forward takes up to ``batch`` of those that wait."""
    arrivals = Arrivals(per_second)
    latencies: list[float] = []
    while len(latencies) < len(rows):
        done = len(latencies)
        numbers = arrivals.take(min(batch, len(rows) - done))
        if not numbers:
            time.sleep(max(0.0, arrivals.due(done) - arrivals.now()))
            continue
        part = [rows[number] for number in numbers]
        rig.forward.run(part, keep=[True] * len(part))
        end = arrivals.now()
        latencies += [end - arrivals.due(number) for number in numbers]
    ordered = sorted(latencies)
    p95 = ordered[round(0.95 * (len(ordered) - 1))]
    return Served(len(rows) / arrivals.now(), statistics.median(latencies), p95)
