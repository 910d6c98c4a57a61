"""Traces and metrics set up for one process, and brought to an end within a time limit."""

from __future__ import annotations

import os
import socket
import threading
import uuid

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from worker.errors import ConfigurationError
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry import instruments
from worker.telemetry.export import ExportPlan, export_plan
from worker.telemetry.metric_export import PeriodicExport
from worker.telemetry.prometheus import exposition
from worker.telemetry.root_sampling import RootSampling
from worker.telemetry.spans import tracer

SERVICE = "moderation-worker"
MAX_LINKS = 1024
"""Events a shared span may link to; the SDK would silently drop those after the 128th."""
MAX_ATTRIBUTE_LENGTH = 256


class Telemetry:
    """What ``configure`` set up. Use ``shutdown`` once, after the last event."""

    def __init__(
        self, resource: Resource, provider: TracerProvider | None, export: PeriodicExport | None
    ) -> None:
        self.resource = resource
        self._provider = provider
        self._export = export

    def collect(self) -> MetricsData:
        """Everything measured so far."""
        return instruments.collect(self.resource, str(self.resource.attributes["service.version"]))

    def metrics_page(self, accept: str = "") -> tuple[bytes, str]:
        """Body and content type of ``/metrics``."""
        return exposition(self.collect(), accept)

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Hand over what is left and stop. Returns after ``timeout_s`` at the latest."""
        provider, self._provider = self._provider, None
        export, self._export = self._export, None
        tracer.bind(None)
        threads = []
        if provider is not None:
            threads.append(threading.Thread(target=provider.shutdown, daemon=True))
        if export is not None:
            threads.append(threading.Thread(target=export.stop, args=(timeout_s,), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout_s)


def configure(
    settings: TelemetrySettings,
    service_version: str,
    *,
    span_exporter: SpanExporter | None = None,
    max_links: int = MAX_LINKS,
) -> Telemetry:
    """Set up traces and metrics as the settings and the ``OTEL_*`` variables say.

    ``max_links`` must be at least the largest batch and the largest transaction, in events.
    Without an exporter no span is made at all: a producer's context is handed on unchanged.
    ``span_exporter`` takes the place of OTLP (tests, embedding).

    Raises:
        ConfigurationError: an ``OTEL_*`` variable asks for what is not here.
    """
    plan = export_plan()
    resource = _resource(service_version)
    provider = None
    roots = RootSampling(settings.sample_ratio) if plan.own_sampler else None
    if plan.traces or span_exporter is not None:
        provider = _tracer_provider(settings, plan, resource, max_links, roots)
        provider.add_span_processor(BatchSpanProcessor(span_exporter or OTLPSpanExporter()))
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(provider)  # libraries that bring spans of their own
    if provider is None:
        tracer.bind(trace.NoOpTracerProvider(), follows_producer=True)
    else:
        tracer.bind(provider, plan.own_sampler, roots)
    telemetry = Telemetry(resource, provider, None)
    if plan.metrics:
        telemetry._export = PeriodicExport(
            OTLPMetricExporter(),
            telemetry.collect,
            _milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            _milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
        )
    return telemetry


def _tracer_provider(
    settings: TelemetrySettings,
    plan: ExportPlan,
    resource: Resource,
    max_links: int,
    roots: RootSampling | None,
) -> TracerProvider:
    limits = SpanLimits(
        max_links=max_links if plan.own_link_limit else None,
        max_span_attribute_length=MAX_ATTRIBUTE_LENGTH,
    )
    return TracerProvider(
        # None: the SDK reads OTEL_TRACES_SAMPLER.
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)) if plan.own_sampler else None,
        resource=resource,
        id_generator=roots,
        span_limits=limits,
        shutdown_on_exit=False,
    )


def _resource(version: str) -> Resource:
    """Who is speaking. Attributes named by the environment stand over these."""
    ours: dict[str, str | int] = {
        "service.name": SERVICE,
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    named = OTELResourceDetector().detect().attributes
    return Resource.create({key: value for key, value in ours.items() if key not in named})


def _milliseconds(variable: str, default: float) -> float:
    """The variable's milliseconds, in seconds."""
    raw = os.environ.get(variable, "").strip()
    try:
        value = float(raw) if raw else default
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ConfigurationError(f"{variable}: {raw!r} is no number of milliseconds above 0")
    return value / 1e3
