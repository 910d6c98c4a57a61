"""Where telemetry goes: decided by the standard ``OTEL_*`` variables alone.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
``/metrics`` is served whatever they say; traces and metrics go out over OTLP where they ask for it.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Mapping

import msgspec
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.errors import ConfigurationError
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry import instruments
from worker.telemetry.tracing import tracer

SERVICE = "moderation-worker"
PROTOCOL = "http/protobuf"
MAX_LINKS = 1024
"""Events a shared span may link to; the SDK would silently drop those after the 128th."""
MAX_ATTRIBUTE_LENGTH = 256
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class ExportPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported over OTLP, and whether the sampler was chosen by the environment."""

    traces: bool = False
    metrics: bool = False
    own_sampler: bool = True
    own_link_limit: bool = True


def export_plan(environ: Mapping[str, str] = os.environ) -> ExportPlan:
    """Read the plan. Nothing is exported unless a variable asks for it.

    Raises:
        ConfigurationError: a variable asks for an exporter or a protocol that is not here.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ExportPlan()
    return ExportPlan(
        traces=_wanted("TRACES", environ),
        metrics=_wanted("METRICS", environ),
        own_sampler=not environ.get("OTEL_TRACES_SAMPLER", "").strip(),
        own_link_limit=not environ.get("OTEL_SPAN_LINK_COUNT_LIMIT", "").strip(),
    )


def _wanted(signal: str, environ: Mapping[str, str]) -> bool:
    selector = f"OTEL_{signal}_EXPORTER"
    chosen = {each.strip().lower() for each in environ.get(selector, "").split(",")} - {""}
    known = {"otlp", "none"} | ({"prometheus"} if signal == "METRICS" else set())
    if unknown := chosen - known:
        raise ConfigurationError(
            f"{selector}: no exporter named {', '.join(sorted(unknown))}; "
            f"use {' or '.join(sorted(known, reverse=True))}"
        )
    endpoint = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    wanted = "otlp" in chosen if chosen else bool(environ.get(endpoint) or environ.get(_ENDPOINT))
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environ.get(variable, "").strip().lower()
        if wanted and protocol not in ("", PROTOCOL):
            raise ConfigurationError(
                f"{variable}: {protocol!r} is not spoken here; use {PROTOCOL} (port 4318 as a rule)"
            )
        if protocol:
            break
    return wanted


class Telemetry:
    """What ``configure`` set up. Use ``shutdown`` once, after the last event."""

    def __init__(
        self,
        resource: Resource,
        meters: MeterProvider,
        registry: CollectorRegistry,
        spans: TracerProvider | None,
    ) -> None:
        self.resource = resource
        self._meters, self._registry, self._spans = meters, registry, spans
        self._ended = False

    def metrics_page(self, accept: str = "") -> tuple[bytes, str]:
        """Body and content type of ``/metrics``; ``accept`` is the scraper's header."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def sums_of(self, *names: str) -> tuple[float, ...]:
        """The sums of samples of ``/metrics`` over all their series, 0 where there is none."""
        sums = dict.fromkeys(names, 0.0)
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
        return tuple(sums.values())

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Hand over what is left and stop. Returns after ``timeout_s`` at the latest."""
        if self._ended:
            return
        self._ended = True
        providers = [each for each in (self._spans, self._meters) if each is not None]
        threads = [threading.Thread(target=each.shutdown, daemon=True) for each in providers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout_s)
        tracer.bind(None)
        instruments.bind(None)


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
    spans = None
    if plan.traces or span_exporter is not None:
        spans = _tracer_provider(settings, plan, resource, max_links)
        spans.add_span_processor(BatchSpanProcessor(span_exporter or OTLPSpanExporter()))
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(spans)  # libraries that bring spans of their own
    tracer.bind(spans or trace.NoOpTracerProvider())
    registry = CollectorRegistry(auto_describe=False)
    readers: list[MetricReader] = [
        PrometheusMetricReader(registry=registry, scope_info_enabled=False)
    ]
    if plan.metrics:
        readers.append(
            PeriodicExportingMetricReader(
                OTLPMetricExporter(),
                _milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
                _milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30_000),
            )
        )
    meters = MeterProvider(readers, resource, shutdown_on_exit=False, views=instruments.views())
    instruments.bind(meters, service_version)
    return Telemetry(resource, meters, registry, spans)


def _tracer_provider(
    settings: TelemetrySettings, plan: ExportPlan, resource: Resource, max_links: int
) -> TracerProvider:
    limits = SpanLimits(
        max_links=max_links if plan.own_link_limit else None,
        max_span_attribute_length=MAX_ATTRIBUTE_LENGTH,
    )
    return TracerProvider(
        # None: the SDK reads OTEL_TRACES_SAMPLER.
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)) if plan.own_sampler else None,
        resource=resource,
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
    raw = os.environ.get(variable, "").strip()
    try:
        value = float(raw) if raw else default
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ConfigurationError(f"{variable}: {raw!r} is no number of milliseconds above 0")
    return value
