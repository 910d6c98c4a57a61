"""What was measured, series by series, and what an instrument is called in Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from worker.telemetry import instruments

UNITS = {"s": "seconds", "By": "bytes"}

Series = dict[tuple[str, frozenset[tuple[str, Any]]], float]


def name_of(name: str, unit: str | None) -> str:
    """A metric's name in Prometheus, without the ``_total`` that counters add."""
    plain = name.replace(".", "_")
    suffix = UNITS.get(unit or "", "")
    return f"{plain}_{suffix}" if suffix and not plain.endswith(f"_{suffix}") else plain


def label_of(name: str) -> str:
    """A label's name in Prometheus."""
    return name.replace(".", "_")


class Measured:
    """Everything measured since it was made."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            [self._reader], shutdown_on_exit=False, views=instruments.views()
        )

    def points(self, name: str | None = None) -> Iterator[tuple[str, Any]]:
        """Every data point, of one metric or of all, by the metric's name."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if name in (None, metric.name):
                        yield from ((metric.name, point) for point in metric.data.data_points)

    def series(self, name: str | None = None) -> Series:
        """The value of each series; of a histogram its count."""
        return {
            (metric, frozenset((point.attributes or {}).items())): (
                point.count if isinstance(point, HistogramDataPoint) else point.value
            )
            for metric, point in self.points(name)
        }

    def total(self, name: str, **labels: Any) -> float:
        """The sum over the series of ``name`` that carry these labels, dots as underscores."""
        wanted = set(labels.items())
        return sum(
            value
            for (_, found), value in self.series(name).items()
            if wanted <= {(label_of(key), each) for key, each in found}
        )


@contextmanager
def measured() -> Iterator[Measured]:
    """Everything that is measured inside, by anybody in this process."""
    found = Measured()
    instruments.bind(found.provider)
    try:
        yield found
    finally:
        instruments.bind(None)
        found.provider.shutdown()
