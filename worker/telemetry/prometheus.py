"""The Prometheus text of ``/metrics``, from the OpenTelemetry data model.

Names follow https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/:
dots become underscores, units stand written out at the end of the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

_UNITS = {"s": "seconds", "By": "bytes"}
_NOT_NAME = re.compile(r"[^a-zA-Z0-9_:]+")


def name_of(name: str, unit: str | None) -> str:
    """The metric's name in Prometheus, without the ``_total`` that counters add."""
    plain = _NOT_NAME.sub("_", name)
    suffix = _UNITS.get(unit or "", "")
    return f"{plain}_{suffix}" if suffix and not plain.endswith(f"_{suffix}") else plain


def label_of(name: str) -> str:
    """The label's name in Prometheus."""
    return _NOT_NAME.sub("_", name).replace(":", "_")


class _Snapshot(Collector):
    def __init__(self, data: MetricsData) -> None:
        self._data = data

    def collect(self) -> Iterator[Family]:
        for resource in self._data.resource_metrics:
            info = {
                label_of(name): str(value) for name, value in resource.resource.attributes.items()
            }
            yield InfoMetricFamily("target", "The process that was measured", info)
            for scope in resource.scope_metrics:
                yield from (_family(metric) for metric in scope.metrics)


def _family(metric: Metric) -> Family:
    name, text = name_of(metric.name, metric.unit), metric.description or ""
    data = metric.data
    names = sorted({key for point in data.data_points for key in point.attributes or {}})
    labels = [label_of(each) for each in names]
    if isinstance(data, Histogram):
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for point in data.data_points:
            histogram.add_metric(_values(point, names), list(_buckets(point)), point.sum)
        return histogram
    family: CounterMetricFamily | GaugeMetricFamily
    if isinstance(data, Sum) and data.is_monotonic:
        family = CounterMetricFamily(name, text, labels=labels)
    elif isinstance(data, (Gauge, Sum)):
        family = GaugeMetricFamily(name, text, labels=labels)
    else:  # no instrument of ours makes one
        raise TypeError(f"{metric.name}: {type(data).__name__} has no Prometheus form here")
    for number in data.data_points:
        family.add_metric(_values(number, names), number.value)
    return family


def _values(point: NumberDataPoint | HistogramDataPoint, names: Iterable[str]) -> list[str]:
    attributes = point.attributes or {}
    return [_text(attributes.get(name, "")) for name in names]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _buckets(point: HistogramDataPoint) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*point.explicit_bounds, "+Inf"), point.bucket_counts, strict=True):
        total += count
        yield str(bound), total


def exposition(data: MetricsData, accept: str = "") -> tuple[bytes, str]:
    """The page and its content type; ``accept`` is the scraper's header (OpenMetrics if asked)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(data))
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
