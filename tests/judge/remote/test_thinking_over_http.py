"""THINK over HTTP: a second question; its trace counts for what it is, never over the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.openai_server import Body, Fault, OpenAIServer, Written, WrittenToken
from tests.support.openai_writers import ScriptWriter, script, token
from worker.codes import SkippedReasoning
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import Judgement, JudgeRequest, ThinkPlan
from worker.policy.passes import builtin_rubric

Serve = Callable[..., Awaitable[OpenAIServer]]
JudgeOf = Callable[..., Awaitable[RemoteJudge]]
STOCK = builtin_rubric(())
USER, SAFE = token("User Safety:"), token(" safe", 0.98, {" unsafe": 0.01})
UNSAFE = (token(" unsafe", 0.95, {" safe": 0.05}), token("\nSafety Categories: Violence"))
ALWAYS = ThinkPlan(when="always", max_tokens=40, deadline_s=5.0)
TRACE = tuple(token(text) for text in ("<think>", "\nThe user asks about", " bread.", "\n</think>"))


async def think(
    serve: Serve,
    judge_of: JudgeOf,
    *tokens: WrittenToken,
    plan: ThinkPlan = ALWAYS,
    **fields: str,
) -> tuple[Judgement, OpenAIServer]:
    """One event called safe without thinking, and ``tokens`` with it."""

    def answer(body: Body) -> Written:
        thinking = body["chat_template_kwargs"]["enable_thinking"]
        return script(*tokens, **fields) if thinking else script(USER, SAFE)

    server = await serve(ScriptWriter(answer))
    judge = await judge_of(server)
    request = JudgeRequest(user="the case", response=None, rubric=STOCK, think=plan)
    return await judge.judge(request), server


async def test_a_trace_stands_beside_the_answer(serve: Serve, judge_of: JudgeOf) -> None:
    judged, server = await think(serve, judge_of, *TRACE, USER, *UNSAFE)
    assert judged.user.label == "safe"
    thought = judged.thought
    assert thought is not None
    assert thought.user is not None
    assert (thought.trace, thought.skipped) == ("The user asks about bread.", None)
    assert (thought.user.label, thought.categories[0].name) == ("unsafe", "Violence")
    budgets = [body["max_tokens"] for body in server.requests]
    assert budgets[1] == budgets[0] + ALWAYS.max_tokens


async def test_a_trace_in_a_field_of_its_own_is_a_trace(serve: Serve, judge_of: JudgeOf) -> None:
    """Servers with a reasoning parser take it out of the text (``reasoning_content``)."""
    judged, _ = await think(serve, judge_of, USER, SAFE, reasoning="<think>\nNothing.\n</think>")
    thought = judged.thought
    assert thought is not None
    assert (thought.trace, thought.skipped) == ("Nothing.", None)
    assert thought.user is not None


@pytest.mark.parametrize(
    ("tokens", "skipped"),
    [
        ((USER, SAFE), SkippedReasoning.EMPTY),
        ((token("<think>\n\n</think>"), USER, SAFE), SkippedReasoning.EMPTY),
        ((*TRACE[:3],), SkippedReasoning.UNCLOSED),
        ((*TRACE,), SkippedReasoning.FAILED),
        ((*TRACE, token("I think it is fine.")), SkippedReasoning.FAILED),
        ((*TRACE[:1], *[token(" so")] * 60, TRACE[3], USER, SAFE), SkippedReasoning.UNCLOSED),
    ],
    ids=["ignored", "empty", "unclosed", "no verdict", "prose", "over budget"],
)
async def test_a_trace_that_does_not_count_says_why(
    serve: Serve, judge_of: JudgeOf, tokens: tuple[WrittenToken, ...], skipped: SkippedReasoning
) -> None:
    """And the answer without it stands."""
    judged, _ = await think(serve, judge_of, *tokens)
    assert judged.user.label == "safe"
    assert judged.thought is not None
    assert judged.thought.skipped == skipped


async def test_an_unclosed_trace_in_its_own_field_is_unclosed(
    serve: Serve, judge_of: JudgeOf
) -> None:
    judged, _ = await think(serve, judge_of, reasoning="On and on", finish="length")
    assert judged.thought is not None
    assert judged.thought.skipped == SkippedReasoning.UNCLOSED


@pytest.mark.parametrize("status", [429, 500, 400])
async def test_a_trace_that_fails_takes_nothing_away(
    serve: Serve, judge_of: JudgeOf, status: int
) -> None:
    """The verdict was there first; the trace is not even retried."""

    def answer(body: Body) -> Written:
        return script(USER, SAFE)

    server = await serve(ScriptWriter(answer))
    judge = await judge_of(server)
    request = JudgeRequest(user="the case", response=None, rubric=STOCK, think=ALWAYS)
    server.faults["the case"] = Fault(status=status, thinking=True)
    judged = await judge.judge(request)
    assert judged.user.label == "safe"
    assert judged.thought is not None
    assert judged.thought.skipped == SkippedReasoning.FAILED
    assert server.texts().count("the case") == 2


async def test_a_trace_that_takes_too_long_is_given_up(serve: Serve, judge_of: JudgeOf) -> None:
    server = await serve(ScriptWriter(lambda _: script(USER, SAFE)))
    judge = await judge_of(server)
    server.faults["the case"] = Fault(hang=True, thinking=True)
    plan = ThinkPlan(when="always", deadline_s=0.2)
    request = JudgeRequest(user="the case", response=None, rubric=STOCK, think=plan)
    judged = await judge.judge(request)
    assert judged.user.label == "safe"
    assert judged.thought is not None
    assert judged.thought.skipped == SkippedReasoning.DEADLINE


async def test_more_traces_than_the_lane_takes_are_shed(serve: Serve, judge_of: JudgeOf) -> None:
    """Under load reasoning goes first: verdicts are all there, and say what they lack."""
    server = await serve(ScriptWriter(lambda _: script(*TRACE, USER, SAFE)))
    judge = await judge_of(server, think_lane=2)
    server.faults["the case"] = Fault(hang=True, thinking=True)
    plan = ThinkPlan(when="always", deadline_s=1.0)
    request = JudgeRequest(user="the case", response=None, rubric=STOCK, think=plan)
    judged = await asyncio.gather(*(judge.judge(request) for _ in range(12)))
    skipped = [each.thought.skipped for each in judged if each.thought is not None]
    assert len(skipped) == 12
    assert SkippedReasoning.OVERLOAD in skipped
    assert all(each.user.label == "safe" for each in judged)


async def test_traces_beyond_the_tokens_a_second_are_not_asked_for(
    serve: Serve, judge_of: JudgeOf
) -> None:
    """As the local judge's: what the server wrote counts, and the verdict stands."""
    asked = 0

    def answer(body: Body) -> Written:
        nonlocal asked
        thinking = body["chat_template_kwargs"]["enable_thinking"]
        asked += thinking
        return script(*TRACE, USER, SAFE) if thinking else script(USER, SAFE)

    server = await serve(ScriptWriter(answer))
    judge = await judge_of(server, think_tokens_per_s=2)
    request = JudgeRequest(user="the case", response=None, rubric=STOCK, think=ALWAYS)
    thoughts = [(await judge.judge(request)).thought for _ in range(2)]
    assert [each.skipped for each in thoughts if each] == [None, SkippedReasoning.OVERLOAD]
    assert asked == 1
