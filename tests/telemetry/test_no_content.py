"""A hostile corpus runs through the real pipeline, and its canary stays inside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.canary import CANARY, assert_no_canary, hostile_values, logged
from tests.support.otlp import collector
from tests.support.policies import make_policy
from tests.support.records import input_record
from worker.accounting.event_log import log_dead_letter, log_event
from worker.clock import ManualClock
from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.contracts.verdict import ModelRef
from worker.errors import DependencyUnavailable, Undecided
from worker.images import FetchedImage
from worker.judgement import Judgement, JudgeRequest, Rubric, Side, Thought
from worker.log.base import Delivery
from worker.policy.model import Policy
from worker.processing.evaluator import Evaluator
from worker.processing.processor import OutputTopics, Pipeline, PipelineLimits, Processed
from worker.records import Header
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry.export import configure
from worker.telemetry.tracing import MAX_TRACESTATE_BYTES
from worker.web.recent import Recent


class IndiscreetJudge:
    """Answers, or fails in every way a judge can, quoting what it was given each time."""

    def __init__(self) -> None:
        self.calls = 0

    def model(self, adapter: str | None = None) -> ModelRef:
        return ModelRef(id="m", revision="r", adapter=None, template_sha256="0", numerics="f")

    async def start(self) -> None:
        return

    async def judge(self, request: JudgeRequest) -> Judgement:
        self.calls += 1
        match self.calls % 4:
            case 0:
                raise ValueError(request.user)
            case 1:
                raise Undecided(UndecidedReason.MALFORMED_OUTPUT, detail=request.user)
            case 2:
                raise DependencyUnavailable("judge", request.user)
        thought = Thought(trace=request.user, user=Side(label="unsafe", score=1.0))
        return Judgement(
            user=Side(label="unsafe", score=0.9), response=None, thought=thought, input_tokens=9
        )

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        """Nothing to prepare."""

    def stalled_s(self) -> float:
        return 0.0

    async def stop(self) -> None:
        return


class IndiscreetFetcher:
    """Fails every image, quoting its reference."""

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        yield tuple(
            FetchedImage(uri=ref.uri, error=UndecidedReason.IMAGE_MISSING, detail=ref.uri)
            for ref in refs
        )


class OnePolicy:
    def __init__(self) -> None:
        self.policy = make_policy(name="devtools")

    def select(self, topic: str) -> Policy | None:
        return self.policy

    def candidate(self, policy: Policy) -> Policy | None:
        return None


async def test_a_hostile_corpus_leaves_no_trace_in_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Logs at debug, every span kept, all metrics: none of them holds what a user wrote."""
    clock = ManualClock()
    recent = Recent(clock)
    finished: list[Processed] = []

    def record(processed: Processed) -> None:
        finished.append(processed)
        if processed.evaluation is not None:
            log_event(processed.evaluation.verdict)
            recent.add(processed.evaluation.verdict, held=True, text=CANARY, traces=(CANARY,))
        elif processed.unreadable is not None:
            log_dead_letter(processed.record, processed.unreadable)

    pipeline = Pipeline(
        Evaluator(IndiscreetJudge(), IndiscreetFetcher(), clock),
        OnePolicy(),
        OutputTopics(verdicts="v", quarantine="q", dead_letter="d", shadow="s"),
        PipelineLimits(max_event_bytes=10**6, max_output_bytes=10**6, max_images=4),
        clock,
        build="test",
        group="g",
        record=record,
    )
    # State that a producer chose is content as well, but it must travel: only headers carry it.
    state = (Header.TRACESTATE, b"v=" + b"1" * MAX_TRACESTATE_BYTES)
    with collector() as sink, logged() as stream:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
        telemetry = configure(TelemetrySettings(sample_ratio=1.0), "1")
        for value in hostile_values() * 3:
            try:
                await pipeline(Delivery(record=input_record(value, headers=(state,))))
            except DependencyUnavailable:
                continue
        metrics, _ = telemetry.metrics_page()
        telemetry.shutdown()
        assert_no_canary(stream.getvalue(), metrics, *sink.raw)
        assert len(sink.spans()) > len(finished)
    assert len(finished) > len(hostile_values())
    assert len(stream.getvalue().splitlines()) >= len(finished)
    activity = recent.activity()
    assert activity.verdicts
    assert all(not row.text and not row.trace for row in activity.verdicts)
