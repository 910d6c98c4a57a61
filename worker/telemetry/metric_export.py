"""Periodic OTLP export of the metrics, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

logger = logging.getLogger(__name__)


class PeriodicExport:
    """Exports what ``collect`` returns every ``interval_s``, and once more when it ends."""

    def __init__(
        self,
        exporter: MetricExporter,
        collect: Callable[[], MetricsData],
        interval_s: float,
        timeout_s: float,
    ) -> None:
        self._exporter = exporter
        self._collect = collect
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._ended = threading.Event()
        # A daemon: an unreachable collector must never keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="metric-export", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.export()

    def export(self) -> bool:
        """Export now; False where the collector did not take it (the next one carries it too)."""
        try:
            result = self._exporter.export(self._collect(), timeout_millis=self._timeout_s * 1e3)
        except Exception as error:  # a metric must never take the worker down
            logger.warning("metrics could not be exported: %s", error)
            return False
        return result is MetricExportResult.SUCCESS

    def stop(self, timeout_s: float) -> None:
        """End the thread, export what is left, and return after ``timeout_s`` at the latest."""
        self._ended.set()
        last = threading.Thread(target=self._finish, name="metric-export-last", daemon=True)
        last.start()
        last.join(timeout_s)

    def _finish(self) -> None:
        self._thread.join()
        self.export()
        self._exporter.shutdown()
