"""Traces go on from the producer, arrive over OTLP, and carry only declared names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.canary import CANARY
from tests.support.otlp import Collector, collector
from tests.support.records import input_record
from worker.codes import DeadLetterCode
from worker.errors import ConfigurationError, UnreadableRecord
from worker.records import Header, Output
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry import instruments
from worker.telemetry.export import configure
from worker.telemetry.names import Attribute, Metric, Span
from worker.telemetry.tracing import (
    event_span,
    finished_span,
    kept_context,
    output_contexts,
    shared_span,
    stage,
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEPT = ((Header.TRACEPARENT, f"00-{TRACE}-{PARENT}-01".encode()),)
NOT_KEPT = ((Header.TRACEPARENT, f"00-{TRACE}-{PARENT}-00".encode()),)
NEVER = TelemetrySettings(sample_ratio=0.0)
ALWAYS = TelemetrySettings(sample_ratio=1.0)


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
        yield received


def test_an_event_is_a_consumer_span_beneath_its_producer(sink: Collector) -> None:
    """A producer's kept trace goes on in the worker, whatever the worker's own ratio is."""
    telemetry = configure(NEVER, "1.2.3")
    with event_span(input_record(b"{}", headers=KEPT), "g1"):
        with stage(Span.DECODE):
            pass
        with stage(Span.JUDGE):
            finished_span(Span.QUEUE, 1_000, 2_000)
    telemetry.shutdown()

    (consume,) = sink.spans(Span.CONSUME)
    assert consume.trace_id.hex() == TRACE
    assert consume.parent_span_id.hex() == PARENT
    assert consume.kind == SpanProto.SPAN_KIND_CONSUMER
    attributes = {each.key: each.value for each in consume.attributes}
    assert attributes[Attribute.SYSTEM].string_value == "kafka"
    assert attributes[Attribute.OFFSET].int_value == 7
    assert attributes[Attribute.GROUP].string_value == "g1"
    (judge,) = sink.spans(Span.JUDGE)
    (queue,) = sink.spans(Span.QUEUE)
    assert judge.parent_span_id == consume.span_id
    assert queue.parent_span_id == judge.span_id
    assert (queue.start_time_unix_nano, queue.end_time_unix_nano) == (1_000, 2_000)
    assert sink.resources[0]["service.name"] == "moderation-worker"
    assert sink.resources[0]["service.version"] == "1.2.3"


def test_outputs_carry_the_event_span_on(sink: Collector) -> None:
    """Whoever reads the verdict continues the same trace beneath the event's span."""
    telemetry = configure(NEVER, "1")
    with event_span(input_record(b"{}", headers=KEPT), "g") as span:
        headers = dict(span.headers(((Header.TRACEPARENT, b"stale"), ("other", b"kept"))))
    telemetry.shutdown()
    (consume,) = sink.spans(Span.CONSUME)
    assert headers[Header.TRACEPARENT] == f"00-{TRACE}-{consume.span_id.hex()}-01".encode()
    assert headers["other"] == b"kept"


def test_a_batch_links_every_kept_event_beyond_the_default_limit(sink: Collector) -> None:
    """A shared span links to all its events: the SDK alone would drop those after the 128th."""
    telemetry = configure(ALWAYS, "1")
    contexts = []
    for _ in range(300):
        with event_span(input_record(b"{}"), "g"):
            contexts.append(kept_context())
    with shared_span(Span.JUDGE_BATCH, contexts, {Attribute.BATCH_SIZE: 300}):
        pass
    telemetry.shutdown()
    (batch,) = sink.spans(Span.JUDGE_BATCH)
    events = {span.span_id for span in sink.spans(Span.CONSUME)}
    assert {link.span_id for link in batch.links} == events
    assert batch.dropped_links_count == 0


def test_a_transaction_links_the_kept_traces_of_its_outputs() -> None:
    """Two outputs of one event give one link, an event that is not kept gives none."""
    outputs = [Output(topic="t", key=None, value=None, headers=KEPT) for _ in range(2)]
    outputs.append(Output(topic="t", key=None, value=None, headers=NOT_KEPT))
    assert [format(each.span_id, "016x") for each in output_contexts(outputs)] == [PARENT]


def test_nothing_is_recorded_for_a_trace_its_producer_did_not_keep(sink: Collector) -> None:
    """The producer's decision stands, and its trace id still reaches the verdict."""
    telemetry = configure(ALWAYS, "1")
    with event_span(input_record(b"{}", headers=NOT_KEPT), "g") as span:
        with stage(Span.DECODE) as decode:
            assert not decode.is_recording()
        assert kept_context() is None
        with shared_span(Span.JUDGE_BATCH, (kept_context(),)):
            pass
        context = dict(span.headers())[Header.TRACEPARENT]
    telemetry.shutdown()
    assert sink.spans() == []
    assert context is not None
    assert context.startswith(f"00-{TRACE}-".encode())
    assert context.endswith(b"-00")


def test_an_error_is_recorded_by_its_code_and_never_by_its_message(sink: Collector) -> None:
    """A message may quote what a user wrote; a class or a code cannot."""
    telemetry = configure(ALWAYS, "1")
    for error in (UnreadableRecord(DeadLetterCode.NOT_JSON, detail=CANARY), KeyError(CANARY)):
        with pytest.raises(type(error)), event_span(input_record(b"{}"), "g"), stage(Span.DECODE):
            raise error
    telemetry.shutdown()
    kinds = {
        each.value.string_value
        for span in sink.spans(Span.DECODE)
        for each in span.attributes
        if each.key == Attribute.ERROR_TYPE
    }
    assert kinds == {"not_json", "KeyError"}
    assert all(span.status.code == span.status.STATUS_CODE_ERROR for span in sink.spans())
    assert all(CANARY.encode() not in body for body in sink.raw)


def test_the_current_span_is_given_back_after_the_event() -> None:
    """An event leaves nothing behind in the task that judged it."""
    telemetry = configure(ALWAYS, "1", span_exporter=InMemorySpanExporter())
    before = trace.get_current_span()
    with event_span(input_record(b"{}"), "g"), stage(Span.DECODE):
        assert trace.get_current_span() is not before
    assert trace.get_current_span() is before
    telemetry.shutdown()


def test_without_an_exporter_the_producers_context_is_handed_on_unchanged() -> None:
    """A worker that traces nothing does not put spans into a trace that nobody will ever see."""
    telemetry = configure(ALWAYS, "1")
    with event_span(input_record(b"{}", headers=KEPT), "g") as span:
        assert not span.recording
        assert dict(span.headers()) == dict(KEPT)
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("variables", "arrives"),
    [
        ({}, True),
        ({"OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_decide_what_is_exported(
    sink: Collector, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], arrives: bool
) -> None:
    """OTEL_* is obeyed as the specification says, also over the settings' ratio."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    telemetry = configure(ALWAYS, "1")
    with event_span(input_record(b"{}"), "g"):
        pass
    telemetry.shutdown()
    assert bool(sink.spans(Span.CONSUME)) is arrives


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_an_exporter_that_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Asking for gRPC and getting silence would be worse than a message at the start."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="OTEL_"):
        configure(ALWAYS, "1")


def test_the_environment_names_the_service(
    sink: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_SERVICE_NAME stands over the worker's own name."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "moderation-eu")
    telemetry = configure(ALWAYS, "1")
    with event_span(input_record(b"{}"), "g"):
        pass
    telemetry.shutdown()
    assert sink.resources[0]["service.name"] == "moderation-eu"


def test_a_duration_leads_to_the_trace_that_it_was_measured_in(sink: Collector) -> None:
    """From a bar of the latency histogram to one event that was that slow."""
    telemetry = configure(NEVER, "1")
    for headers in (KEPT, NOT_KEPT):
        with event_span(input_record(b"{}", headers=headers), "g"):
            instruments.event_duration.record(0.1)
    telemetry.shutdown()
    (consume,) = sink.spans(Span.CONSUME)
    (measured,) = [each for each in sink.metrics() if each.name == Metric.EVENT_DURATION]
    exemplars = measured.histogram.data_points[0].exemplars
    assert [each.trace_id.hex() for each in exemplars] == [TRACE]
    assert exemplars[0].span_id == consume.span_id


def test_a_disabled_sdk_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the specification says, and as the page about telemetry warns."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = configure(ALWAYS, "1")
    instruments.events.add(1)
    assert b"moderation_" not in telemetry.metrics_page()[0].replace(b"moderation-worker", b"")
    telemetry.shutdown()
