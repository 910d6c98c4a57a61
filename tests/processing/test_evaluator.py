"""One event's passes: judged together, ended together, signed with the model that answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.judgements import judgement, policy
from worker.clock import ManualClock
from worker.codes import UndecidedReason
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import ModelRef, SourceRef
from worker.errors import DependencyUnavailable
from worker.images import FetchedImage
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest
from worker.policy.model import CustomPass, Policy
from worker.processing.evaluator import Evaluator

SOURCE = SourceRef(topic="in", partition=0, offset=0, timestamp=0)
EVENT = Event(id="e", conversation_id="c", messages=(Message(role="user", text="hello"),))


class NoImages:
    """Images that were fetched, and have nothing to see."""

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        yield tuple(FetchedImage(uri=ref.uri) for ref in refs)


class HalfAwayJudge(ScriptedJudge):
    """Finds itself away in the built-in pass while the custom one is still being judged."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    async def judge(self, request: JudgeRequest) -> Judgement:
        if request.rubric.mode == "builtin":
            await asyncio.sleep(0)
            raise DependencyUnavailable("judge")
        self.under_way += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.under_way -= 1
        return judgement()


class NamedModels(ScriptedJudge):
    """Says which adapters it was asked to identify."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str | None] = []

    def model(self, adapter: str | None = None) -> ModelRef:
        self.named.append(adapter)
        return super().model(adapter)

    async def judge(self, request: JudgeRequest) -> Judgement:
        self.named.append(request.adapter)
        return await super().judge(request)


def evaluator(judge: ScriptedJudge) -> Evaluator:
    return Evaluator(judge, NoImages(), ManualClock())


async def test_a_pass_that_finds_the_judge_away_ends_its_siblings() -> None:
    """The event is retried from the start: nothing of the first try may go on beside it."""
    judge = HalfAwayJudge()
    both: Policy = policy(custom=CustomPass(disallowed=("Gossip",)))
    with pytest.raises(DependencyUnavailable):
        await evaluator(judge).evaluate(EVENT, both, SOURCE)
    assert judge.under_way == 0


async def test_a_verdict_names_the_adapter_that_judged(tmp_path: Path) -> None:
    """An adapter lies beside its policy's file, wherever the worker was started."""
    judge = NamedModels()
    file = str(tmp_path / "policy.yaml")
    await evaluator(judge).evaluate(EVENT, policy(adapter="own", file=file), SOURCE)
    assert set(judge.named) == {str(tmp_path / "own")}


async def test_an_image_that_no_pass_has_seen_is_never_safe() -> None:
    """Fetched without an error and without anything to look at: that is a fault of ours."""
    images = (ImageRef(uri="s3://bucket/key"),)
    event = Event(
        id="e", conversation_id="c", messages=(Message(role="user", text="hi", images=images),)
    )
    verdict = (await evaluator(ScriptedJudge()).evaluate(event, policy(), SOURCE)).verdict
    assert verdict.outcome == "undecided"
    assert verdict.undecided_reason == UndecidedReason.INTERNAL_ERROR
    assert verdict.undecided_detail == "images[0]: no pass has seen it"
