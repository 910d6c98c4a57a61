"""Seconds of a call: wall and process CPU time, the device waited for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Taken(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float


def take(call: Callable[[], object]) -> Taken:
    """Time one call."""
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    _wait()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu)


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, Taken]:
    """Medians of ``rounds`` turns of every call, after one turn that does not count.

    Taking turns lets a disturbance of the machine meet everyone.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(take(call))
    return {
        name: Taken(
            statistics.median(each.wall for each in runs),
            statistics.median(each.cpu for each in runs),
        )
        for name, runs in taken.items()
    }


def matmul_rate(device: torch.device, dtype: torch.dtype, hidden: int, rounds: int = 5) -> float:
    """FLOP/s of a plain matrix product of this model's width: what no engine can exceed."""
    rows, inner, columns = 2048, hidden, 4 * hidden
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)
    repeat = 20 if device.type == "cuda" else 5

    def call() -> None:
        for _ in range(repeat):
            torch.nn.functional.linear(left, right)

    seconds = in_turns({"matmul": call}, rounds)["matmul"].wall
    return 2 * rows * inner * columns * repeat / seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
