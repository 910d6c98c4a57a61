"""Telemetry never keeps a worker from ending."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.otlp import collector
from tests.support.records import input_record
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry import instruments
from worker.telemetry.export import configure
from worker.telemetry.names import Attribute, Metric
from worker.telemetry.tracing import event_span


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_shutdown_returns_in_time_though_the_collector_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collector that accepts and stays silent costs the time limit, not the drain."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        telemetry = configure(TelemetrySettings(sample_ratio=1.0), "1")
        with event_span(input_record(b"{}"), "g"):
            pass
        started = time.monotonic()
        telemetry.shutdown(timeout_s=0.5)
        assert time.monotonic() - started < 2.0


def test_shutdown_exports_what_was_measured_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last minute of a worker is in the metrics, though the interval had not come round."""
    with collector() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        telemetry = configure(TelemetrySettings(), "1")
        instruments.events.add(3, {Attribute.POLICY: "p", Attribute.OUTCOME: "safe"})
        telemetry.shutdown()
        by_name = {metric.name: metric for metric in sink.metrics()}
    (point,) = by_name[Metric.EVENTS].sum.data_points
    assert point.as_double == 3 or point.as_int == 3
    assert by_name[Metric.EVENTS].unit == "{event}"
