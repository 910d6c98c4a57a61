"""Latency of the engine at a steady rate of events: what waits is taken when the device is free."""

from __future__ import annotations

import statistics
import time

from worker.bench.engine.against import Served
from worker.bench.engine.verdicts import Rig
from worker.judge.engine.packing import Row


def at_rate(rig: Rig, rows: list[Row], per_second: float, batch: int) -> Served:
    """Rows that arrive at a steady rate; each forward takes up to ``batch`` of those that wait."""
    started = time.perf_counter()
    latencies: list[float] = []
    done = 0
    while done < len(rows):
        now = time.perf_counter() - started
        arrived = min(len(rows), int(now * per_second) + 1)
        if arrived == done:
            time.sleep(max(0.0, done / per_second - now))
            continue
        part = rows[done : min(arrived, done + batch)]
        rig.forward.run(part, keep=[True] * len(part))
        end = time.perf_counter() - started
        latencies += [end - (done + n) / per_second for n in range(len(part))]
        done += len(part)
    ordered = sorted(latencies)
    p95 = ordered[round(0.95 * (len(ordered) - 1))]
    seconds = time.perf_counter() - started
    return Served(len(rows) / seconds, statistics.median(latencies), p95)
