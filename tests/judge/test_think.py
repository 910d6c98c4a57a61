"""THINK: it stands beside the verdict, never holds it up, and is the first thing shed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.judge.conformance import request
from worker.judge.local.requests import ReasoningRequest
from worker.judge.think import wanted
from worker.judgement import Side, ThinkPlan

Open = Callable[..., Awaitable[Any]]
ALWAYS = ThinkPlan(when="always", max_tokens=64, deadline_s=30.0)


def side(score: float) -> Side:
    return Side(label="unsafe" if score >= 0.5 else "safe", score=score)


@pytest.mark.parametrize(
    ("when", "user", "response", "expected"),
    [
        ("never", 0.9, 0.9, False),
        ("always", 0.0, None, True),
        ("unsafe", 0.59, None, False),
        ("unsafe", 0.61, None, True),
        ("unsafe", 0.1, 0.7, True),
        ("uncertain", 0.3, None, False),
        ("uncertain", 0.4, None, True),
        ("uncertain", 0.4, 0.9, False),
        ("uncertain", 0.1, 0.5, True),
    ],
)
def test_the_plan_says_which_scores_are_thought_about(
    when: Any, user: float, response: float | None, expected: bool
) -> None:
    plan = ThinkPlan(when=when, threshold=0.6, band=(0.35, 0.65))
    assert wanted(plan, side(user), None if response is None else side(response)) is expected


@pytest.mark.parametrize(
    ("text", "skipped", "trace"),
    [
        ("<think>\nThe user asks", "unclosed", "The user asks"),
        ("<think>\n\n\n</think>", "empty", ""),
        ("User Safety: safe", "empty", ""),
        ("<think>\nThe user asks for help.\n\n\n</think>", None, "The user asks for help."),
    ],
)
async def test_a_trace_that_does_not_count_says_why(
    open_rig: Open, text: str, skipped: str | None, trace: str
) -> None:
    """Unclosed, empty and missing traces keep the no-think answer and name the reason."""
    rig = await open_rig()
    rig.device.write = lambda _: text
    judged = await rig.judge.judge(request(think=ALWAYS))
    assert judged.thought is not None
    assert (judged.thought.skipped, judged.thought.trace) == (skipped, trace)
    assert (judged.thought.user is None) == (skipped is not None)


@pytest.mark.parametrize(
    "words",
    [
        "The user input is safe.",
        "The user input is unsafe.",
        "The request isn't safe.",
        'The user says that "this message is safe".',
        "The user asks how to crack a safe.",
        "Nothing harmful was found.",
    ],
)
async def test_what_a_trace_says_in_words_drops_no_reading_behind_it(
    open_rig: Open, words: str
) -> None:
    """Labels are compared, never words: a safe is cracked, and users are quoted."""
    rig = await open_rig()
    rig.device.write = lambda _: f"<think>\n{words}\n</think>"
    judged = await rig.judge.judge(request(think=ALWAYS))
    assert judged.thought is not None
    assert (judged.thought.skipped, judged.thought.trace) == (None, words)
    assert judged.thought.user is not None


async def test_a_failing_trace_is_recorded_and_the_verdict_stands(open_rig: Open) -> None:
    rig = await open_rig()

    def write(_: ReasoningRequest) -> str:
        raise ValueError("odd")

    rig.device.write = write
    judged = await rig.judge.judge(request(think=ALWAYS))
    assert judged.thought is not None
    assert judged.thought.skipped == "failed"


async def test_publishing_waits_for_a_trace_no_longer_than_the_deadline(open_rig: Open) -> None:
    """A trace that never ends costs its deadline, then leaves the device."""
    rig = await open_rig()
    rig.device.write = lambda _: None
    started = time.monotonic()
    judged = await rig.judge.judge(
        request(think=ThinkPlan(when="always", max_tokens=64, deadline_s=0.3))
    )
    assert judged.thought is not None
    assert judged.thought.skipped == "deadline"
    assert 0.3 <= time.monotonic() - started < 10.0
    deadline = time.monotonic() + 10.0
    while True:  # the abandoned trace is dropped: the device comes to rest
        steps = rig.device.steps
        await asyncio.sleep(0.1)
        if rig.device.steps == steps:
            break
        assert time.monotonic() < deadline, "the abandoned trace is still being written"


async def test_verdicts_never_wait_for_a_whole_trace(open_rig: Open) -> None:
    """While endless traces are written, a hundred verdicts pass between their steps."""
    rig = await open_rig()
    rig.device.write = lambda _: None
    plan = ThinkPlan(when="always", max_tokens=64, deadline_s=60.0)
    thinking = [asyncio.ensure_future(rig.judge.judge(request(think=plan))) for _ in range(6)]
    deadline = time.monotonic() + 20.0
    while rig.device.steps < 5:
        assert time.monotonic() < deadline, "no trace was begun"
        await asyncio.sleep(0.01)
    judged = await asyncio.gather(*(rig.judge.judge(request(f"n {n}")) for n in range(100)))
    assert len(judged) == 100
    assert not any(task.done() for task in thinking)
    rig.device.write = lambda _: "<think>\nThe user asks for help.\n</think>"
    assert [judged.thought.skipped for judged in await asyncio.gather(*thinking)] == [None] * 6


async def test_under_overload_thinking_is_shed_and_every_event_is_judged(open_rig: Open) -> None:
    """With a lane of four, the fifth trace is dropped at once; its verdict stands."""
    rig = await open_rig(think_lane=4)
    rig.device.write = lambda _: None
    plan = ThinkPlan(when="always", max_tokens=64, deadline_s=60.0)
    tasks = [asyncio.ensure_future(rig.judge.judge(request(think=plan))) for _ in range(20)]
    deadline = time.monotonic() + 30.0
    while sum(task.done() for task in tasks) < 16:
        assert time.monotonic() < deadline, "the overload was not shed"
        await asyncio.sleep(0.01)
    shed = [task.result() for task in tasks if task.done()]
    assert {judged.thought.skipped for judged in shed} == {"overload"}
    rig.device.write = lambda _: "<think>\nThe user asks for help.\n</think>"
    kept = [await task for task in tasks]
    assert sum(judged.thought.skipped is None for judged in kept) == 4


async def test_a_shed_lane_takes_traces_again_once_it_has_room(open_rig: Open) -> None:
    rig = await open_rig(think_lane=1)
    rig.device.write = lambda _: "<think>\nThe user asks for help.\n</think>"
    for _ in range(3):
        judged = await rig.judge.judge(request(think=ALWAYS))
        assert judged.thought is not None
        assert judged.thought.skipped is None
