"""Telemetry that is not kept costs next to nothing."""

from __future__ import annotations

import pytest

from moderation_tools.bench.telemetry import (
    SDK_SPAN,
    SPANS,
    SPANS_TRACED,
    measure,
)


@pytest.mark.slow
def test_an_event_that_is_not_kept_costs_a_few_spans_at_most() -> None:
    """All spans of an event cost less than ten of the SDK's.

    Ratios of one run, because other work shares the machine; the bench prints microseconds.
    """
    figures = measure()
    assert figures[SPANS] < 10 * figures[SDK_SPAN]
    assert figures[SPANS_TRACED] < 10 * figures[SDK_SPAN]
