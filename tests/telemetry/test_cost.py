"""Telemetry that is not kept costs next to nothing."""

from __future__ import annotations

import pytest

from moderation_tools.bench.telemetry import (
    METRICS,
    SDK_METRICS,
    SDK_SPAN,
    SPANS,
    SPANS_TRACED,
    measure,
)


@pytest.mark.slow
def test_an_event_that_is_not_kept_costs_a_few_spans_at_most() -> None:
    """All spans of an event cost less than five of the SDK's, its measurements half of the SDK's.

    Ratios of one run, because other work shares the machine; the bench prints microseconds.
    """
    figures = measure()
    assert figures[SPANS] < 5 * figures[SDK_SPAN]
    assert figures[SPANS_TRACED] < 5 * figures[SDK_SPAN]
    assert figures[METRICS] < 0.5 * figures[SDK_METRICS]
