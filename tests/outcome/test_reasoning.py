"""What a THINK trace may change, and what it may not."""

from __future__ import annotations

import pytest

from tests.support.judgements import judgement, policy, side, thought
from worker.guard.nemotron35 import FLOOR
from worker.judgement import Thought
from worker.outcome.decide import Decision, decide
from worker.outcome.passes import PassResult
from worker.outcome.reasoning import shorten
from worker.policy.model import BuiltinPass, Think, Thresholds


def decided(
    when: str, score: float, trace: Thought, *categories: str, response: float | None = None
) -> Decision:
    result = PassResult(
        source="builtin",
        judgement=judgement(score, *categories, response=response, thought=trace),
    )
    return decide(policy(think=Think(when=when)), [result], [])  # type: ignore[arg-type]


def test_under_always_the_verdict_of_the_trace_is_the_verdict() -> None:
    assert decided("always", 0.9, thought(0.0)).outcome == "safe"
    assert decided("always", 0.1, thought(1.0, "Malware")).outcome == "unsafe"


def test_under_uncertain_the_trace_decides_what_the_score_could_not() -> None:
    assert decided("uncertain", 0.55, thought(0.0)).outcome == "safe"
    assert decided("uncertain", 0.45, thought(1.0)).outcome == "unsafe"


def test_under_unsafe_a_safe_trace_is_recorded_and_lowers_nothing() -> None:
    decision = decided("unsafe", 0.9, thought(0.0), "Malware")
    assert decision.outcome == "unsafe"
    assert decision.reasoning is not None
    assert decision.reasoning.skipped == "contradictory"


def test_under_unsafe_a_trace_refines_the_categories() -> None:
    decision = decided("unsafe", 0.9, thought(1.0, "Malware"), "Needs Caution")
    assert [category.name for category in decision.categories] == ["Malware"]


@pytest.mark.parametrize("when", ["always", "unsafe", "uncertain"])
@pytest.mark.parametrize("skipped", ["empty", "unclosed", "contradictory", "failed", "deadline"])
def test_a_trace_that_does_not_count_keeps_the_outcome_and_is_recorded(
    when: str, skipped: str
) -> None:
    decision = decided(when, 0.9, thought(0.0, skipped=skipped))
    assert decision.outcome == "unsafe"
    assert decision.reasoning is not None
    assert decision.reasoning.skipped == skipped


@pytest.mark.parametrize("when", ["always", "unsafe", "uncertain"])
def test_thinking_alone_never_lowers_the_floor(when: str) -> None:
    assert decided(when, 0.9, thought(0.0), FLOOR).outcome == "unsafe"


@pytest.mark.parametrize("named", [("Violence",), ("Violence", "Sexual"), ()])
def test_under_unsafe_a_trace_that_names_only_suppressed_categories_clears_nothing(
    named: tuple[str, ...],
) -> None:
    """The score was unsafe for another reason, or for one it did not name: talking the model into
    an allowed name behind it is no way out. Where the score named only allowed ones, it is."""
    lax = policy(think=Think(when="unsafe"), builtin=BuiltinPass(suppress=("Sexual",)))

    def behind(*score_names: str) -> Decision:
        judged = judgement(0.9, *score_names, thought=thought(0.9, "Sexual"))
        return decide(lax, [PassResult(source="builtin", judgement=judged)], [])

    assert behind(*named).outcome == "unsafe"
    assert [each.name for each in behind(*named).categories] == [*named[:1]]
    assert behind("Sexual").outcome == "safe"


def test_a_floor_that_only_the_trace_came_near_is_not_cleared_with_a_suppressed_name() -> None:
    """The trace names a suppressed category, with the floor at 0.3 behind it."""
    lax = policy(think=Think(when="always"), builtin=BuiltinPass(suppress=("Sexual",)))
    for floor, outcome in ((0.3, "unsafe"), (0.05, "safe")):
        judged = judgement(0.1, thought=thought(0.9, "Sexual", floor=floor))
        result = PassResult(source="builtin", judgement=judged)
        assert decide(lax, [result], []).outcome == outcome


def test_the_threshold_decides_about_the_score_behind_a_trace_too() -> None:
    for threshold, outcome in ((0.3, "unsafe"), (0.5, "safe")):
        strict = policy(think=Think(when="always"), thresholds=Thresholds(unsafe=threshold))
        result = PassResult(source="builtin", judgement=judgement(0.1, thought=thought(0.4)))
        assert decide(strict, [result], []).outcome == outcome


def test_a_trace_that_forgets_the_response_does_not_count() -> None:
    decision = decided("always", 0.1, thought(0.0), response=0.9)
    assert decision.outcome == "unsafe"


def test_a_trace_that_judges_both_sides_counts() -> None:
    both = Thought(trace="Fine.", user=side(0.0), response=side(0.0))
    assert decided("always", 0.1, both, response=0.9).outcome == "safe"


def test_the_verdict_shows_three_sentences_and_the_decision_keeps_the_whole_trace() -> None:
    decision = decided("always", 0.9, thought(1.0))
    assert decision.reasoning is not None
    assert decision.reasoning.trace == "One. Two. Three."
    assert decision.traces == ("One. Two. Three. Four.",)


def test_an_endless_sentence_is_cut_so_that_it_cannot_outgrow_its_record() -> None:
    assert len(shorten("word " * 10_000)) == 1_000


def test_sentences_are_told_apart_in_scripts_without_blanks() -> None:
    assert shorten("一。二。三。四。") == "一。 二。 三。"
