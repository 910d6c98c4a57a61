"""A limit on how often one warning is repeated: a flood hides the line that matters."""

from __future__ import annotations

import logging
import threading

from worker.clock import Clock, SystemClock

MAX_TEMPLATES = 1000


class RepeatLimit(logging.Filter):
    """Lets a warning through ``burst`` times in ``window_s`` seconds, per logger and template.

    The first line of the next window says how many were left out (``suppressed``). Lines below
    WARNING and the lines of events are never limited.
    """

    def __init__(self, burst: int = 5, window_s: float = 60.0, clock: Clock | None = None) -> None:
        super().__init__()
        self._burst, self._window_s = burst, window_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], list[float]] = {}  # window start, lines in it

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, str(record.msg)[:200])
        now = self._clock.monotonic()
        with self._lock:
            window = self._seen.get(key)
            if window is None:
                if len(self._seen) >= MAX_TEMPLATES:
                    self._seen.clear()
                self._seen[key] = [now, 1.0]
                return True
            if now - window[0] >= self._window_s:
                left_out = int(window[1]) - self._burst
                window[:] = [now, 1.0]
                if left_out > 0:
                    record.suppressed = left_out
                return True
            window[1] += 1
            return window[1] <= self._burst
