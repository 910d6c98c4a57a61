"""What a server that serves the same weights is asked, it answers as the local judge does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.support.openai_server import OpenAIServer
from tests.support.openai_writers import CheckpointWriter
from tests.support.remote_judges import compare, held_out
from worker.judge.base import Judge
from worker.judge.local.judge import LocalJudge
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import Judgement, JudgeRequest
from worker.settings import JudgeSettings

pytestmark = pytest.mark.model

CLOSE = 1e-3
"""Largest difference of scores: one side renormalises what the other rounds."""


@pytest_asyncio.fixture
async def judges(
    tiny_writer: CheckpointWriter,
    serve: Callable[..., Awaitable[OpenAIServer]],
    judge_of: Callable[..., Awaitable[RemoteJudge]],
) -> AsyncIterator[tuple[Judge, RemoteJudge]]:
    remote = await judge_of(await serve(tiny_writer), timeout_s=50.0, concurrency=4)
    local = LocalJudge(JudgeSettings(model="tiny", dtype="float32", device="cpu"))
    await local.start()
    yield local, remote
    await local.stop()


async def answers(judge: Judge, requests: list[JudgeRequest]) -> list[Judgement]:
    return list(await asyncio.gather(*(judge.judge(each) for each in requests)))


@pytest.mark.parametrize(
    "kind", ["builtin", "suppressed", "taxonomy", "policy", "response", "image", "folded"]
)
async def test_verdicts_are_those_of_the_local_judge(
    judges: tuple[Judge, RemoteJudge], kind: str
) -> None:
    """Labels, categories and the floor are equal, and scores close, on held-out cases."""
    requests = held_out(kind, 8)
    local, remote = [await answers(judge, requests) for judge in judges]
    found = compare(local, remote)
    assert (found.labels, found.floor) == (found.count, found.count)
    assert found.categories == found.count
    assert found.furthest < CLOSE


async def test_traces_and_their_verdicts_are_those_of_the_local_judge(
    judges: tuple[Judge, RemoteJudge],
) -> None:
    """Thinking over HTTP writes the trace that thinking here writes, and reads the same behind."""
    requests = held_out("think", 8)
    local, remote = [await answers(judge, requests) for judge in judges]
    found = compare(local, remote)
    assert found.thoughts == found.traces == found.count
    for one, other in zip(local, remote, strict=True):
        assert one.thought is not None
        assert other.thought is not None
        if one.thought.user is not None:
            assert other.thought.user is not None
            assert one.thought.user.label == other.thought.user.label
