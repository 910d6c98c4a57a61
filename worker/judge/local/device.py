"""What the scheduler needs of the model: the seam between the reference and faster engines."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

import torch

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.local.requests import ReasoningRequest, ReasoningResult, ScoreRequest, ScoreResult

# What the scheduler needs of the model: the seam between the plain judge and faster engines.

Fault = Literal["memory", "lost", "other"]
"""Out of memory (smaller batches help), device gone (nothing helps), anything else."""


class ReasoningLane(Protocol):
    """The traces of one adapter that are being written."""

    @property
    def active(self) -> bool: ...

    def add(self, requests: Sequence[ReasoningRequest]) -> Sequence[int]:
        """Begin more of them; returns a number for each."""
        ...

    def step(self) -> list[tuple[int, ReasoningResult | Undecided]]:
        """Write one token of some of them; returns those that ended, by number."""
        ...

    def drop(self, number: int) -> None:
        """Nobody waits for this one any more."""
        ...


class Prefill(Protocol):
    """A long context that is computed piece by piece."""

    def step(self) -> ScoreRequest | None:
        """Compute one piece; the request to read once only the rest is left."""
        ...


class Device(Protocol):
    """One accelerator with its models. Every method is called from the device thread only.

    ``packed`` says that contexts of one batch cost their own tokens, not the longest one's each.
    """

    @property
    def packed(self) -> bool: ...

    def cost(self, request: ScoreRequest) -> int:
        """Tokens that reading this context computes."""
        ...

    def read(
        self, adapter: str | None, requests: Sequence[ScoreRequest]
    ) -> list[ScoreResult | Undecided]: ...

    def prefill(self, adapter: str | None, request: ScoreRequest) -> Prefill | None:
        """How to compute a context too long for one batch; None where it is not."""
        ...

    def warm(self, adapter: str | None, prefix: Sequence[int]) -> Iterator[None]:
        """Compute a policy's prefix before its first event, a piece a step."""
        ...

    def reasoning(self, adapter: str | None) -> ReasoningLane:
        """An empty set of traces to add to."""
        ...

    def fault(self, error: Exception) -> Fault:
        """What kind of failure an exception of these methods was."""
        ...

    def recover(self) -> bool:
        """Free what can be freed; False where the device no longer computes."""
        ...


class DeviceLost(Exception):
    """The device stopped answering in the middle of a batch."""


class DeviceUnwell(Exception):
    """The device computes, but fails at whatever it is asked to judge."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def run_isolated(
    run: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    device: Device,
    healthy: Callable[[], bool] = lambda: True,
    *,
    again: bool = True,
) -> list[Result | Undecided]:
    """Run a batch; where it fails, run its halves, down to the one that is at fault.

    One that found no memory alone is tried once more (``again``) with what was freed meanwhile.
    ``healthy`` judges something known to be good: where that fails too, no item is at fault.

    Raises:
        DeviceLost: the device no longer computes, which is no item's fault.
        DeviceUnwell: it computes, but cannot judge anything now (another process has its memory).
    """
    fault = ""
    try:
        return list(run(items))
    except Exception as error:
        fault = device.fault(error)
        detail = type(error).__name__
        if fault == "lost":
            raise DeviceLost(detail) from error
    # Outside the handler: the traceback would keep the failed batch's tensors alive.
    if not device.recover():
        raise DeviceLost(detail)
    if len(items) == 1:
        if fault == "memory" and again:
            return run_isolated(run, items, device, healthy, again=False)
        if not healthy():
            raise DeviceUnwell(detail)
        reason = (
            UndecidedReason.OUT_OF_MEMORY if fault == "memory" else UndecidedReason.INTERNAL_ERROR
        )
        return [Undecided(reason, detail=detail)]
    middle = len(items) // 2
    first = run_isolated(run, items[:middle], device, healthy)
    return first + run_isolated(run, items[middle:], device, healthy)


_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")
_LOST = ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")


def fault_of(error: Exception) -> Fault:
    """The kind of a failure, told from torch's exceptions and messages."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        mark in text for mark in _MEMORY
    ):
        return "memory"
    if isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(mark in text for mark in _LOST)
    ):
        return "lost"
    return "other"


def recovers(device: torch.device) -> bool:
    """Give cached memory back, and request the device for one sum."""
    gc.collect()
    try:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return float(torch.ones(2, device=device).sum()) == 2.0
    except RuntimeError:
        return False
