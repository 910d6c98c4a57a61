"""Where telemetry goes: decided by the standard ``OTEL_*`` variables alone.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from worker.errors import ConfigurationError

PROTOCOL = "http/protobuf"
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
    unknown = chosen - {"otlp", "none", "prometheus"}
    if unknown:
        raise ConfigurationError(
            f"{selector}: no exporter named {', '.join(sorted(unknown))}; use otlp or none"
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
