"""A device call that never returns: unhealthy at the batch deadline, ended at twice that."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from worker.telemetry.logs import flush

logger = logging.getLogger(__name__)

HUNG_DEVICE_EXIT = 71
"""Exit code of a process whose device call hung; a new process takes its partitions over."""


class Watchdog:
    """Looks at ``stalled_s`` from a thread of its own, for the event loop may hang as well.

    ``exit`` ends the process without running anything else: a hung call can be neither interrupted
    nor waited for.
    """

    def __init__(
        self,
        stalled_s: Callable[[], float],
        deadline_s: float,
        *,
        exit: Callable[[int], object] = os._exit,  # noqa: A002 - it is what it does
    ) -> None:
        self._stalled_s, self._deadline_s, self._exit = stalled_s, deadline_s, exit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="judge-watchdog", daemon=True)

    @property
    def healthy(self) -> bool:
        """Whether no batch has been on the device past its deadline."""
        return self._stalled_s() <= self._deadline_s

    def check(self) -> None:
        """End the process if a batch has been on the device for over twice its deadline."""
        stalled = self._stalled_s()
        if stalled > 2 * self._deadline_s:
            logger.critical(
                "a batch has been on the device for %.1f s (judge.batch_deadline_s is %.1f): "
                "ending the process",
                stalled,
                self._deadline_s,
            )
            flush()  # nothing else runs after this, the thread that writes the log included
            self._exit(HUNG_DEVICE_EXIT)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(min(self._deadline_s / 4, 5.0)):
            self.check()
