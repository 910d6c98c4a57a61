"""Seconds of a call, the device waited for: by the wall, or of this process's CPU.

On a CPU that does other work too, CPU time of one thread says more than the wall does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from worker.judge.engine.quantization import Numerics, product, quantizer

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


_chosen = ["wall"]


def use(name: str) -> None:
    """Take time by this one of ``CLOCKS`` from now on."""
    _chosen[0] = name


def now() -> float:
    """Seconds by the clock in use."""
    return CLOCKS[_chosen[0]]()


def take(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    _wait()
    began = now()
    call()
    _wait()
    return now() - began


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of ``rounds`` turns of every call, after one turn that does not count.

    Taking turns lets a disturbance of the machine meet everyone.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(take(call))
    return {name: statistics.median(runs) for name, runs in taken.items()}


def matmul_rate(
    device: torch.device, dtype: torch.dtype, hidden: int, numerics: Numerics, rounds: int = 5
) -> float:
    """Operations per second of a plain matrix product of this model's width in these numerics:
    what no engine can exceed. Its operands are ready; making them eight bits wide is not counted.
    """
    rows, columns = 2048, 4 * hidden
    multiply = _product(
        torch.randn(rows, hidden, device=device).to(dtype),
        torch.randn(columns, hidden, device=device).to(dtype),
        numerics,
    )
    repeat = 20 if device.type == "cuda" else 5

    def call() -> None:
        for _ in range(repeat):
            multiply()

    seconds = in_turns({"matmul": call}, rounds)["matmul"]
    return 2 * rows * hidden * columns * repeat / seconds


def _product(
    left: torch.Tensor, right: torch.Tensor, numerics: Numerics
) -> Callable[[], torch.Tensor]:
    """``left`` times ``right`` transposed."""
    if numerics == "int8":
        whole, other = (each.mul(40).to(torch.int8) for each in (left, right))
        return lambda: torch._int_mm(whole, other.t())
    if numerics == "fp8":
        by_row = [torch.ones(len(each), 1, device=each.device) for each in (left, right)]
        narrow, other = (each.to(torch.float8_e4m3fn) for each in (left, right))
        return lambda: torch._scaled_mm(
            narrow, other.t(), by_row[0], by_row[1].t(), out_dtype=torch.bfloat16
        )
    linear = quantizer("model", right.device, right.dtype)(right)
    return lambda: product(left, linear)  # by the library that is faster at it


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
