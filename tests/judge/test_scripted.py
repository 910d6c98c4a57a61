"""The scripted judge keeps the contract and its script, at next to no cost."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.judge.conformance import IMAGE, RUBRICS, JudgeConformance, request
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.guard.nemotron35 import FLOOR
from worker.judge.base import Judge
from worker.judge.factory import open_judge
from worker.judge.scripted import ScriptedJudge
from worker.judgement import ThinkPlan
from worker.settings import JudgeSettings

WORDS = {"grenade": "Guns and Illegal Weapons", "darn": "Profanity", "zib": FLOOR}


class TestScriptedJudge(JudgeConformance):
    def make(self) -> Judge:
        return open_judge(JudgeSettings(backend="scripted", cache_bytes=0))


async def test_words_are_found_on_the_side_that_says_them() -> None:
    judge = ScriptedJudge(WORDS)
    judged = await judge.judge(request("a Grenade", response="oh darn, a zib"))
    assert (judged.user.label, judged.response and judged.response.label) == ("unsafe", "unsafe")
    assert [category.name for category in judged.categories] == [
        "Guns and Illegal Weapons",
        "Profanity",
        FLOOR,
    ]
    assert judged.floor_score > 0.9


async def test_a_suppressed_category_does_not_count_and_the_floor_always_does() -> None:
    judge = ScriptedJudge(WORDS)
    suppressed = RUBRICS[1]
    assert (await judge.judge(request("darn", rubric=suppressed))).user.label == "safe"
    assert (await judge.judge(request("zib", rubric=RUBRICS[3]))).user.label == "unsafe"


async def test_a_free_policys_phrases_are_found() -> None:
    judge = ScriptedJudge(WORDS)
    judged = await judge.judge(request("the BANK OF money here", rubric=RUBRICS[3]))
    assert [category.name for category in judged.categories] == ["bank of money"]


async def test_images_are_judged_by_digest() -> None:
    judge = ScriptedJudge({}, images={IMAGE.sha256: "Violence"})
    assert (await judge.judge(request("look", image=IMAGE))).user.label == "unsafe"
    assert (await judge.judge(request("look"))).user.label == "safe"


async def test_markers_raise_what_the_script_says() -> None:
    judge = ScriptedJudge(
        {},
        failures={
            "[[undecided]]": lambda: Undecided(UndecidedReason.MALFORMED_OUTPUT),
            "[[away]]": lambda: DependencyUnavailable("judge"),
        },
    )
    with pytest.raises(Undecided):
        await judge.judge(request("x [[undecided]]"))
    with pytest.raises(DependencyUnavailable):
        await judge.judge(request("x [[away]]"))


async def test_an_uncertain_word_is_thought_about() -> None:
    judge = ScriptedJudge({"hmm": "Threat"}, scores={"hmm": 0.5})
    judged = await judge.judge(request("hmm", think=ThinkPlan(when="uncertain")))
    assert judged.thought is not None
    assert "Threat" in judged.thought.trace


def test_without_a_delay_a_judgement_needs_no_event_loop() -> None:
    """``judge`` finishes at its first step: it never suspends."""
    coroutine = ScriptedJudge(WORDS).judge(request("hello"))
    with pytest.raises(StopIteration) as finished:
        coroutine.send(None)
    assert finished.value.value.user.label == "safe"


async def test_it_costs_less_than_a_twentieth_of_a_millisecond() -> None:
    judge, asked = ScriptedJudge(), request("How do I bake bread without flour? " * 5)
    started = time.process_time()
    for _ in range(2_000):
        await judge.judge(asked)
    assert (time.process_time() - started) / 2_000 < 50e-6


async def test_a_delay_is_waited_for_concurrently() -> None:
    judge = ScriptedJudge(WORDS, delay_s=0.05)
    started = time.monotonic()
    await asyncio.gather(*(judge.judge(request()) for _ in range(50)))
    assert 0.05 <= time.monotonic() - started < 1.5
