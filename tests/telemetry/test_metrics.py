"""The metrics page parses, and says what it means in the right unit."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.support.measured import measured, name_of
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry import instruments
from worker.telemetry.export import Telemetry, configure
from worker.telemetry.instruments import Counter, Gauge, Histogram
from worker.telemetry.names import Attribute, Metric

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
MAX_SERIES = 2000
"""Of one instrument, the SDK specification's limit."""


@pytest.fixture(autouse=True)
def telemetry() -> Iterator[Telemetry]:
    configured = configure(TelemetrySettings(), "1.2.3")
    yield configured
    for each in instruments.instruments():
        if isinstance(each, Gauge):
            each.watch(None)
    configured.shutdown()


def page(telemetry: Telemetry, accept: str = "") -> Samples:
    body, content_type = telemetry.metrics_page(accept)
    parse = parse_openmetrics if "openmetrics" in content_type else text_string_to_metric_families
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_every_instrument_appears_in_its_unit(telemetry: Telemetry, accept: str) -> None:
    """Prometheus and OpenMetrics both parse the page; durations are seconds, sizes bytes."""
    for each in instruments.instruments():
        labels = dict.fromkeys(each.labels, "x")
        if isinstance(each, Counter):
            each.add(1, labels)
        elif isinstance(each, Histogram):
            each.record(1.5, labels)
        elif isinstance(each, Gauge):
            each.set(2)
    names = {name for name, _ in page(telemetry, accept)}
    for each in instruments.instruments():
        suffix = {Counter: "_total", Histogram: "_bucket"}.get(type(each), "")
        assert name_of(each.name, each.unit) + suffix in names
    assert "moderation_event_duration_seconds_bucket" in names
    assert "moderation_inflight_bytes" in names
    assert "moderation_oldest_unjudged_age_seconds" in names
    assert "target_info" in names


def test_a_series_has_the_documented_labels_and_no_other(telemetry: Telemetry) -> None:
    """Labels of the library's own (its scope) would double every series of every query."""
    instruments.events.add(1, dict.fromkeys(instruments.events.labels, "x"))
    (labels,) = [
        dict(found) for name, found in page(telemetry) if name == "moderation_events_total"
    ]
    assert set(labels) == {each.replace(".", "_") for each in instruments.events.labels}


def test_counts_and_labels_are_what_was_counted(telemetry: Telemetry) -> None:
    """One series for each policy and outcome, under the attribute's name."""
    for outcome, count in (("safe", 3), ("undecided", 2)):
        for _ in range(count):
            instruments.events.add(1, {Attribute.OUTCOME: outcome, Attribute.POLICY: 'a"b\\c\nd'})
    samples = page(telemetry)
    labels = frozenset(
        {("moderation_policy_name", 'a"b\\c\nd'), ("moderation_outcome", "undecided")}
    )
    assert samples["moderation_events_total", labels] == 2


def test_a_histogram_keeps_reasoning_apart_from_a_standstill(telemetry: Telemetry) -> None:
    """Bounds reach beyond a trace written under load; a bound belongs to its own bucket."""
    for seconds in (0.0005, 0.05, 12.0, 44.0, 500.0):
        instruments.batch_duration.record(seconds, {Attribute.THINK: "trace"})
    samples = page(telemetry)

    def at_most(bound: str) -> float:
        labels = frozenset({("le", bound), ("moderation_think", "trace")})
        return samples["moderation_judge_batch_duration_seconds_bucket", labels]

    assert [at_most(each) for each in ("0.05", "10.0", "15.0", "45.0", "+Inf")] == [2, 2, 3, 4, 5]


def test_undeclared_labels_never_reach_a_series(telemetry: Telemetry) -> None:
    """A label that was not declared is left out: content in one would be published."""
    instruments.dead_letters.add(1, {Attribute.DEAD_LETTER_CODE: "not_json", "user": "secret"})
    labels = frozenset({("moderation_dead_letter_code", "not_json")})
    assert page(telemetry)["moderation_dead_letters_total", labels] == 1
    assert b"secret" not in telemetry.metrics_page()[0]


def test_series_are_bounded_and_nothing_is_lost_beyond(telemetry: Telemetry) -> None:
    """A label that takes too many values ends in one overflow series with the true sum."""
    for number in range(MAX_SERIES + 500):
        instruments.retries.add(1, {Attribute.DEPENDENCY: f"d{number}"})
    samples = {key: value for key, value in page(telemetry).items() if "retries_total" in key[0]}
    assert len(samples) == MAX_SERIES + 1
    overflow = frozenset({("otel_metric_overflow", "true"), ("moderation_dependency", "")})
    assert samples["moderation_dependency_retries_total", overflow] == 500


def test_a_watched_gauge_forgets_what_is_gone(telemetry: Telemetry) -> None:
    """A revoked partition has no lag any more, not its last one for ever."""
    owned = [("t", 0), ("t", 1)]
    instruments.lag.watch(
        lambda: [
            (9.0, {Attribute.TOPIC: topic, Attribute.PARTITION: part}) for topic, part in owned
        ]
    )
    assert len([key for key in page(telemetry) if key[0] == "moderation_lag"]) == 2
    owned.pop()
    assert len([key for key in page(telemetry) if key[0] == "moderation_lag"]) == 1


def test_counting_from_many_threads_loses_nothing(telemetry: Telemetry) -> None:
    """Fetching threads and the device's thread measure beside the loop."""

    def work() -> None:
        for _ in range(2_000):
            instruments.commits.add(1, {Attribute.TOPIC: "t"})
            instruments.event_duration.record(0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples = page(telemetry)
    topic = frozenset({("messaging_destination_name", "t")})
    assert samples["moderation_commits_total", topic] == 8_000
    assert samples["moderation_event_duration_seconds_count", frozenset()] == 8_000
    total, nothing = telemetry.sums_of("moderation_event_duration_seconds_sum", "nothing")
    assert total == pytest.approx(800.0)
    assert nothing == 0


def test_nothing_is_measured_twice_when_a_worker_follows_another() -> None:
    """A process that runs two services in turn counts for the second alone."""
    for _ in range(2):
        with measured() as found:
            instruments.events.add(1)
            assert found.total(Metric.EVENTS) == 1


def test_every_metric_name_has_exactly_one_instrument() -> None:
    """names.py and the instruments say the same."""
    declared = [value for key, value in vars(Metric).items() if not key.startswith("_")]
    assert sorted(each.name for each in instruments.instruments()) == sorted(declared)
