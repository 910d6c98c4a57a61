"""One record through the pipeline: whatever goes wrong on the way, it ends in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.judgements import policy
from tests.support.records import event_document, input_record
from worker.clock import ManualClock
from worker.contracts.codes import DeadLetterCode
from worker.contracts.dead_letter import parse_dead_letter
from worker.contracts.decode import Decoded
from worker.contracts.event import ImageRef
from worker.evaluation import Evaluator
from worker.judge.base import Judgement, JudgeRequest
from worker.judge.scripted import ScriptedJudge
from worker.media.base import FetchedImage
from worker.pipeline import OutputTopics, Pipeline, PipelineLimits, Processed
from worker.policy.model import Candidate, Policy
from worker.stream.base import Delivery, Output, Record

LIVE = policy(candidate=Candidate(version=2, file="next.yaml", sample=1.0))


class NoStore:
    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        yield ()


class Policies:
    """One live policy, and a candidate that a reload may change."""

    def __init__(self) -> None:
        self.next: Policy | None = None

    def select(self, topic: str) -> Policy | None:
        return LIVE

    def candidate(self, policy: Policy) -> Policy | None:
        return self.next


class Reloading(ScriptedJudge):
    """Policies are reloaded while it judges."""

    def __init__(self, policies: Policies) -> None:
        super().__init__()
        self._policies = policies

    async def judge(self, request: JudgeRequest) -> Judgement:
        self._policies.next = policy(version=3)
        return await super().judge(request)


def pipeline(policies: Policies, judge: ScriptedJudge, finished: list[Processed]) -> Pipeline:
    clock = ManualClock()
    return Pipeline(
        Evaluator(judge, NoStore(), clock),
        policies,
        OutputTopics(verdicts="v", quarantine="q", dead_letter="d", shadow="s"),
        PipelineLimits(max_event_bytes=10**6, max_output_bytes=10**6, max_images=4),
        clock,
        build="test",
        group="g",
        record=finished.append,
    )


def as_read(output: Output) -> Record:
    return Record(
        topic=output.topic,
        partition=0,
        offset=0,
        timestamp=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


@pytest.mark.parametrize("poison", [False, True])
async def test_a_bug_in_reading_a_record_dead_letters_it(
    monkeypatch: pytest.MonkeyPatch, poison: bool
) -> None:
    """Ending the process would read it again in the next one, and in the next, for ever."""

    def broken(record: Record, *_: object, **__: object) -> Decoded:
        raise RuntimeError(str(record.value))

    monkeypatch.setattr("worker.pipeline.decode_event", broken)
    finished: list[Processed] = []
    process = pipeline(Policies(), ScriptedJudge(), finished)
    record = input_record(event_document(id="secret"))
    outputs = await process(Delivery(record=record, poison=poison))
    (letter,) = [parse_dead_letter(as_read(output)) for output in outputs]
    assert (letter.code, letter.detail) == (DeadLetterCode.INTERNAL_ERROR, "RuntimeError")
    assert outputs[0].value == record.value
    assert [each.unreadable is not None for each in finished] == [True]


async def test_a_reload_while_an_event_is_judged_does_not_change_its_candidate() -> None:
    """The policies of an event are those of the moment it was begun."""
    policies = Policies()
    process = pipeline(policies, Reloading(policies), [])
    outputs = await process(Delivery(record=input_record(event_document())))
    assert [output.topic for output in outputs] == ["v"]
    assert policies.next is not None
