"""What the scheduler needs of the model: the seam between the plain judge and faster engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

from worker.contracts.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.reading import Ask, Reading, Trace, TraceAsk

Fault = Literal["memory", "lost", "other"]
"""Out of memory (smaller batches help), device gone (nothing helps), anything else."""


class Traces(Protocol):
    """Reasoning traces being written together."""

    @property
    def active(self) -> bool: ...

    def step(self) -> list[tuple[int, Trace | Undecided]]:
        """Write one token of each; returns those that ended, by index."""
        ...

    def drop(self, index: int) -> None:
        """Nobody waits for this one any more."""
        ...


class Device(Protocol):
    """One accelerator with its models. Every method is called from the device thread only."""

    def read(self, adapter: str | None, asks: Sequence[Ask]) -> list[Reading | Undecided]: ...

    def think(self, adapter: str | None, asks: Sequence[TraceAsk]) -> Traces: ...

    def fault(self, error: Exception) -> Fault:
        """What kind of failure an exception of ``read``, ``think`` or ``step`` was."""
        ...

    def recover(self) -> bool:
        """Free what can be freed; False where the device no longer computes."""
        ...


class DeviceLost(Exception):
    """The device stopped answering in the middle of a batch."""


Item = TypeVar("Item")
Result = TypeVar("Result")


def run_isolated(
    run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], device: Device
) -> list[Result | Undecided]:
    """Run a batch; where it fails, run its halves, down to the one that is at fault.

    Raises:
        DeviceLost: the device no longer computes, which is no item's fault.
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
        reason = (
            UndecidedReason.OUT_OF_MEMORY if fault == "memory" else UndecidedReason.INTERNAL_ERROR
        )
        return [Undecided(reason, detail=detail)]
    middle = len(items) // 2
    return run_isolated(run, items[:middle], device) + run_isolated(run, items[middle:], device)
