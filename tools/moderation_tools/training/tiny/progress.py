"""Progress of a training stage: one line every few seconds, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Progress:
    """Averages losses and accuracies between lines; ``report`` takes each finished line."""

    def __init__(
        self, name: str, steps: int, report: Callable[[str], None], every_s: float = 10.0
    ) -> None:
        self._name = name
        self._steps = steps
        self._report = report
        self._every_s = every_s
        self._began = self._last = time.monotonic()
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def step(
        self, step: int, losses: Mapping[str, float], right: Mapping[str, float], seconds: float
    ) -> None:
        """Count one finished step (from 0) that took ``seconds``."""
        values = {f"{name} loss": value for name, value in losses.items()}
        values |= {f"{name} right": value for name, value in right.items()}
        for name, value in (values | {"s/step": seconds}).items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        now = time.monotonic()
        done = step + 1
        if now - self._last < self._every_s and done < self._steps:
            return
        left = (now - self._began) / done * (self._steps - done)
        means = "  ".join(
            f"{name} {total / self._counts[name]:.3f}" for name, total in self._sums.items()
        )
        self._report(f"{self._name} {done}/{self._steps}  {means}  {left / 60:.1f} min left")
        self._sums, self._counts, self._last = {}, {}, now
