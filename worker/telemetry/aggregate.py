"""Counters, histograms and gauges that cost about a microsecond a measurement.

They aggregate in place and are read out as the OpenTelemetry SDK's own data model, so that every
exporter of that model takes them (why: docs/decisions/metrics-aggregation.md).
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.metrics.export import Gauge as GaugeData
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

from worker.telemetry.names import Attribute

logger = logging.getLogger(__name__)

LabelValue = str | int | bool
Labels = Mapping[str, LabelValue]
Key = tuple[tuple[str, LabelValue], ...]

MAX_SERIES = 2000
"""Label combinations of one instrument; further ones are counted together as overflow.

The same limit and the same attribute as the OpenTelemetry metrics SDK specification (cardinality
limits).
"""
MAX_LABEL_LENGTH = 200
_OVERFLOW: Key = ((Attribute.OVERFLOW, True),)
_NO_LABELS: Labels = {}


class Instrument:
    """What all three share: identity, and series keyed by declared labels only.

    A label that was not declared is left out (and reported once): nobody can put content into a
    metric by accident.
    """

    def __init__(self, name: str, unit: str, description: str, labels: tuple[str, ...]) -> None:
        self.name, self.unit, self.description, self.labels = name, unit, description, labels
        self._lock = threading.Lock()
        self._keys: dict[Key, Key] = {}
        self._started = time.time_ns()

    def _key(self, labels: Labels) -> Key:
        raw = tuple(labels.items())
        known = self._keys.get(raw)
        return known if known is not None else self._admit(raw)

    def _admit(self, raw: Key) -> Key:
        unknown = [name for name, _ in raw if name not in self.labels]
        if unknown:
            logger.warning("a metric was given labels that it does not declare and left them out")
        if len(self._keys) >= MAX_SERIES:
            return _OVERFLOW
        key = tuple(
            sorted(
                (name, value[:MAX_LABEL_LENGTH] if isinstance(value, str) else value)
                for name, value in raw
                if name in self.labels
            )
        )
        self._keys[raw] = key
        return key

    def read(self, now: int) -> DataT:
        """All series at ``now`` (nanoseconds since the epoch)."""
        raise NotImplementedError

    def metric(self, now: int) -> Metric:
        return Metric(self.name, self.description, self.unit, self.read(now))

    def clear(self) -> None:
        """Forget everything measured; for tests and benches that share a process."""
        with self._lock:
            self._keys.clear()
            self._started = time.time_ns()


class Counter(Instrument):
    """A sum that only grows."""

    def __init__(self, name: str, unit: str, description: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, unit, description, labels)
        self._sums: dict[Key, float] = {}

    def add(self, amount: float, labels: Labels = _NO_LABELS) -> None:
        key = self._key(labels)
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + amount

    def read(self, now: int) -> DataT:
        with self._lock:
            sums = list(self._sums.items())
        points = [NumberDataPoint(dict(key), self._started, now, value) for key, value in sums]
        return Sum(points, AggregationTemporality.CUMULATIVE, True)

    def clear(self) -> None:
        super().clear()
        self._sums.clear()


class _Distribution:
    __slots__ = ("count", "counts", "high", "low", "total")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.count, self.total = 0, 0.0
        self.low, self.high = float("inf"), float("-inf")


class Histogram(Instrument):
    """A distribution over fixed upper bounds (inclusive, ascending, in the instrument's unit)."""

    def __init__(
        self,
        name: str,
        unit: str,
        description: str,
        labels: tuple[str, ...],
        bounds: tuple[float, ...],
    ) -> None:
        super().__init__(name, unit, description, labels)
        self.bounds = bounds
        self._series: dict[Key, _Distribution] = {}

    def record(self, value: float, labels: Labels = _NO_LABELS) -> None:
        key = self._key(labels)
        bucket = bisect_left(self.bounds, value)
        with self._lock:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Distribution(len(self.bounds) + 1)
            series.counts[bucket] += 1
            series.count += 1
            series.total += value
            if value < series.low:
                series.low = value
            if value > series.high:
                series.high = value

    def totals(self) -> tuple[int, float]:
        """How many values were recorded over all series, and their sum."""
        with self._lock:
            return (
                sum(series.count for series in self._series.values()),
                sum(series.total for series in self._series.values()),
            )

    def read(self, now: int) -> DataT:
        with self._lock:
            points = [
                HistogramDataPoint(
                    attributes=dict(key),
                    start_time_unix_nano=self._started,
                    time_unix_nano=now,
                    count=series.count,
                    sum=series.total,
                    bucket_counts=tuple(series.counts),
                    explicit_bounds=self.bounds,
                    min=series.low,
                    max=series.high,
                )
                for key, series in self._series.items()
            ]
        return HistogramData(points, AggregationTemporality.CUMULATIVE)

    def clear(self) -> None:
        super().clear()
        self._series.clear()


Observation = tuple[float, Labels]


class Gauge(Instrument):
    """A value as it is now: set when it changes, or watched and asked when it is read."""

    def __init__(self, name: str, unit: str, description: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, unit, description, labels)
        self._values: dict[Key, float] = {}
        self._watch: Callable[[], Iterable[Observation]] | None = None

    def set(self, value: float, labels: Labels = _NO_LABELS) -> None:
        key = self._key(labels)
        with self._lock:
            self._values[key] = value

    def watch(self, observe: Callable[[], Iterable[Observation]] | None) -> None:
        """Ask ``observe`` at every read, in place of what was set; it must not block.

        A series it no longer names is gone from the next read: a revoked partition has no lag.
        """
        self._watch = observe

    def read(self, now: int) -> DataT:
        if self._watch is not None:
            values = {self._key(labels): value for value, labels in self._watch()}
        else:
            with self._lock:
                values = dict(self._values)
        return GaugeData(
            [NumberDataPoint(dict(key), self._started, now, value) for key, value in values.items()]
        )

    def clear(self) -> None:
        super().clear()
        self._values.clear()
        self._watch = None
