"""Whether the server is taken to be away, and how many retries it may be sent.

Closed, requests go out. After ``breaker_failures`` of them within ten seconds, at least half of
all, it opens: nothing is sent until a cooldown is over; then one probe closes it, or opens it for
longer.
"""

from __future__ import annotations

from collections import deque

from worker.clock import Clock
from worker.settings.sections import RemoteSettings
from worker.telemetry import instruments

WINDOW_S = 10.0
"""How far back requests count."""
RATIO = 0.5
"""Share of failures in the window from which the server is away."""
RETRIES = 10.0
"""Retries that may be made at once."""
RETRIES_A_SECOND = 0.2
"""Retries earned by waiting, so that a server that comes back is met with some."""


class Breaker:
    """Used on one event loop only; never blocks."""

    def __init__(self, settings: RemoteSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._cooldown = settings.breaker_initial_s
        self._open_until: float | None = None
        self._served: deque[float] = deque()
        self._failed: deque[float] = deque()
        self._last_served_began = float("-inf")
        instruments.remote_breaker.set(0)

    @property
    def is_open(self) -> bool:
        """Whether the server is taken to be away; true until a probe passes."""
        return self._open_until is not None

    @property
    def cooling(self) -> bool:
        """Whether it is too early even for a probe."""
        return self._open_until is not None and self._clock.monotonic() < self._open_until

    def served(self, began: float) -> None:
        """A request that began at ``began`` (monotonic) got an answer that could be read."""
        self._last_served_began = max(self._last_served_began, began)
        self._served.append(self._clock.monotonic())
        if self._open_until is None:
            self._cooldown = self._settings.breaker_initial_s
        self._prune()

    def served_since(self, began: float) -> bool:
        """Whether a request that began no earlier than this one was answered."""
        return self._last_served_began >= began

    def failed(self) -> None:
        """A request failed for a reason that is not, or may not be, its event's."""
        self._failed.append(self._clock.monotonic())
        self._prune()
        failures = len(self._failed)
        share = failures / (failures + len(self._served))
        if failures >= self._settings.breaker_failures and share >= RATIO:
            self.open()

    def open(self) -> None:
        """Send nothing until the cooldown is over; many fail at once, and it opens once."""
        if self.cooling:
            return
        self._open_until = self._clock.monotonic() + self._cooldown
        self._cooldown = min(2 * self._cooldown, self._settings.breaker_max_s)
        instruments.remote_breaker.set(1)

    def close(self) -> None:
        """A probe was answered."""
        self._open_until = None
        self._failed.clear()
        instruments.remote_breaker.set(0)

    def _prune(self) -> None:
        horizon = self._clock.monotonic() - WINDOW_S
        for times in (self._served, self._failed):
            while times and times[0] < horizon:
                times.popleft()


class RetryBudget:
    """Retries are earned by answers and by time: an outage must not multiply the load."""

    def __init__(self, ratio: float, clock: Clock) -> None:
        self._ratio, self._clock = ratio, clock
        self._tokens, self._at = RETRIES, clock.monotonic()

    def earn(self) -> None:
        """One answer came."""
        self._tokens = min(RETRIES, self._tokens + self._ratio)

    def take(self) -> bool:
        """Whether one more retry may be sent now."""
        now = self._clock.monotonic()
        self._tokens = min(RETRIES, self._tokens + (now - self._at) * RETRIES_A_SECOND)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
