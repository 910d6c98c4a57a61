"""Whether a trace that begins here is kept, decided before any span is made.

The SDK makes a sampler, a context and a span object for every event, to find out that ninety-nine
in a hundred are not kept. Its ratio sampler looks at nothing but the trace id: so the id is drawn
first, and only the traces that will be kept reach the SDK, with the id that was drawn.
"""

from __future__ import annotations

import random

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_DROPPED = TraceFlags(TraceFlags.DEFAULT)


class RootSampling(RandomIdGenerator):
    """Draws trace ids; also the id generator of the tracer provider, so that a drawn id is used."""

    def __init__(self, ratio: float) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)
        self._drawn: int | None = None

    def draw(self) -> NonRecordingSpan | None:
        """The span of a trace that is not kept; None where the next root span will be kept.

        Call it right before that span is started, with no await between.
        """
        trace_id = random.getrandbits(128)
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            span_id = random.getrandbits(64)
            return NonRecordingSpan(SpanContext(trace_id, span_id, False, _DROPPED))
        self._drawn = trace_id
        return None

    def generate_trace_id(self) -> int:
        """The id that was drawn, once; a random one otherwise."""
        drawn, self._drawn = self._drawn, None
        return drawn or super().generate_trace_id()
