"""Tokens of reasoning a second: never more than allowed, and what was not written is free again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.judge.conformance import request
from worker.clock import ManualClock
from worker.judge.think import ThinkBudget
from worker.judgement import ThinkPlan

Open = Callable[..., Awaitable[Any]]
PLAN = ThinkPlan(when="always", max_tokens=64, deadline_s=30.0)


def test_any_stretch_of_time_writes_no_more_than_its_seconds_allow() -> None:
    """Whatever asks, however much of it is given back: rate times time, and one trace."""
    rng, clock = random.Random(0), ManualClock()
    budget, written = ThinkBudget(100, clock), []
    open_traces: list[tuple[int, int]] = []
    for _ in range(4000):
        clock.advance(rng.choice((0.0, 0.01, 0.3)))
        asked = rng.randint(1, 400)
        if budget.take(asked):
            open_traces.append((asked, rng.randint(0, asked)))
        if open_traces and rng.random() < 0.6:
            asked, used = open_traces.pop(rng.randrange(len(open_traces)))
            budget.give_back(asked - used)
            written.append((clock.now, used))
    start, end = written[0][0], written[-1][0]
    total = sum(used for _, used in written)
    assert total <= 100 * (end - start + 1) + 400
    assert total >= 0.5 * 100 * (end - start), "most of what was allowed is used"


def test_what_is_saved_up_is_one_second() -> None:
    """A quiet hour does not let a flood through."""
    clock = ManualClock()
    budget = ThinkBudget(100, clock)
    clock.advance(3600.0)
    assert [budget.take(50) for _ in range(4)] == [True, True, False, False]
    clock.advance(0.6)
    assert budget.take(500)
    clock.advance(4.0)
    assert not budget.take(1)
    clock.advance(1.0)
    assert budget.take(1)


def test_no_limit_is_no_limit() -> None:
    budget = ThinkBudget(0, ManualClock())
    assert all(budget.take(10_000) for _ in range(1000))


@pytest.mark.parametrize("engine", ["packed", "plain"])
async def test_traces_beyond_the_tokens_a_second_are_shed_and_their_verdicts_stand(
    open_rig: Open, engine: str
) -> None:
    """The first trace writes far more than a second's token; the next one is not begun."""
    rig = await open_rig(engine=engine, think_tokens_per_s=1)
    rig.device.write = lambda _: "<think>\nThe user asks for a lot of help, " + "so " * 40
    first, second = [await rig.judge.judge(request(f"n {n}", think=PLAN)) for n in range(2)]
    assert (first.thought.skipped, second.thought.skipped) == ("unclosed", "overload")
    assert 0.0 <= second.user.score <= 1.0
