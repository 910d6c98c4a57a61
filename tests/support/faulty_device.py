"""A device in front of the real one that fails, hangs or writes what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from worker.errors import Undecided
from worker.judge.local.device import Device, Fault, Prefill, ReasoningLane
from worker.judge.local.requests import ReasoningRequest, ReasoningResult, ScoreRequest, ScoreResult


class FaultyDevice:
    """Implements ``device.Device``; without instructions it does what the real one does.

    ``before`` is called with every batch before it is read and may raise or block; ``batches``
    records their sizes. ``write`` stands in for the traces: it gives a text for each ask, written
    at the first step, or never where it gives None.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.before: Callable[[Sequence[ScoreRequest]], None] = lambda _: None
        self.encode: Callable[[str], Sequence[int]] = lambda _: ()
        self.write: Callable[[ReasoningRequest], str | None] | None = None
        self.batches: list[int] = []
        self.steps = 0
        self.alive = True

    def read(
        self, adapter: str | None, asks: Sequence[ScoreRequest]
    ) -> list[ScoreResult | Undecided]:
        self.batches.append(len(asks))
        self.before(asks)
        return self._device.read(adapter, asks)

    @property
    def packed(self) -> bool:
        return self._device.packed

    def cost(self, ask: ScoreRequest) -> int:
        return self._device.cost(ask)

    def prefill(self, adapter: str | None, ask: ScoreRequest) -> Prefill | None:
        return self._device.prefill(adapter, ask)

    def warm(self, adapter: str | None, prefix: Sequence[int]) -> Iterator[None]:
        return self._device.warm(adapter, prefix)

    def reasoning(self, adapter: str | None) -> ReasoningLane:
        return self._device.reasoning(adapter) if self.write is None else _Canned(self)

    def fault(self, error: Exception) -> Fault:
        return self._device.fault(error)

    def recover(self) -> bool:
        return self.alive and self._device.recover()


class _Canned:
    def __init__(self, device: FaultyDevice) -> None:
        self._device = device
        self._open: dict[int, ReasoningRequest] = {}
        self._started = 0

    @property
    def active(self) -> bool:
        return bool(self._open)

    def add(self, asks: Sequence[ReasoningRequest]) -> range:
        numbers = range(self._started, self._started + len(asks))
        self._open.update(zip(numbers, asks, strict=True))
        self._started += len(asks)
        return numbers

    def step(self) -> list[tuple[int, ReasoningResult | Undecided]]:
        self._device.steps += 1
        threading.Event().wait(0.001)  # a step takes a while on a device too
        ended: list[tuple[int, ReasoningResult | Undecided]] = []
        assert self._device.write is not None
        for index, ask in list(self._open.items()):
            text = self._device.write(ask)
            if text is not None:
                del self._open[index]
                ended.append(
                    (index, ReasoningResult(tuple(self._device.encode(text)), text, "stop"))
                )
        return ended

    def drop(self, number: int) -> None:
        self._open.pop(number, None)
