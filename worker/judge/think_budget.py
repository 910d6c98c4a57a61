"""How many tokens of reasoning a second may be written: the share of the device that THINK gets.

What a trace may take is taken when it begins, and what it did not need is given back when it ends.
A trace begins while anything is left, so ``T`` seconds write at most ``per_second x (T + 1)``
tokens and one trace more.
"""

from __future__ import annotations

from worker.clock import Clock


class ThinkBudget:
    """``per_second`` tokens, saved up for one second at most; 0 bounds nothing."""

    def __init__(self, per_second: int, clock: Clock) -> None:
        self._per_second, self._clock = per_second, clock
        self._left, self._at = float(per_second), clock.monotonic()

    def take(self, tokens: int) -> bool:
        """Whether a trace of so many tokens may begin now; they are taken if so."""
        if not self._per_second:
            return True
        now = self._clock.monotonic()
        self._add(self._per_second * (now - self._at))
        self._at = now
        if self._left <= 0:
            return False
        self._left -= tokens
        return True

    def give_back(self, tokens: int) -> None:
        """What a trace had taken and did not write."""
        self._add(tokens)

    def _add(self, tokens: float) -> None:
        self._left = min(self._left + tokens, float(self._per_second))
