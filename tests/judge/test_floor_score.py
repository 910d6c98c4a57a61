"""The floor's score is P(unsafe) times P(its name), whatever the labels come to."""

from __future__ import annotations

import math

import pytest

from tests.support.checkpoints import make_tokenizer
from tests.support.script_model import ScriptModel
from worker.judge.local.batch_scoring import plain_reader
from worker.judge.local.label_scores import Limits, answer_tokens
from worker.judge.local.loading import encoder
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import Context
from worker.judge.think import concluded
from worker.judgement import Side
from worker.policy.passes import builtin_rubric

TOKENIZER = make_tokenizer()
ENCODE = encoder(TOKENIZER)
MARK = TOKENIZER.convert_tokens_to_ids("<unused17>")
ANSWER = answer_tokens(ENCODE, [TOKENIZER.eos_token_id])
LIKELY = 1 / (1 + math.exp(-1))
"""Of a token with logit 20 beside one with 19, which is what every token meets here."""
NAME = LIKELY ** len(ANSWER.floor)
FLOOR_LINE = "Safety Categories: Sexual (minor)"


def read(
    text: str, other: float = 0.0, *, rival: int = ANSWER.unsafe, budget: int = 48
) -> ScoreResult:
    """The reading where ``text`` is written, with logit 20, beside ``other`` of a ``rival``."""
    script = [*ENCODE(text), TOKENIZER.eos_token_id]
    model = ScriptModel(len(TOKENIZER), MARK, script, rivals=[(rival, other)])
    context = Context((*ENCODE("the prompt"), MARK))
    reader = plain_reader(model, ANSWER, TOKENIZER, Limits(4, 1000))
    (reading,) = reader.read([ScoreRequest(context, False, builtin_rubric(()), 0.5, budget)])
    assert isinstance(reading, ScoreResult)
    return reading


def test_a_safe_side_that_may_break_the_floor_is_asked_for_it() -> None:
    """Safe at 0.27: were it unsafe, it would probably be the floor."""
    reading = read(f"User Safety: safe\n{FLOOR_LINE}", 19.0)
    assert reading.user.label == "safe"
    assert reading.categories == ()
    assert reading.floor_score == pytest.approx((1 - LIKELY) * NAME, abs=0.01)


def test_a_safe_side_that_would_be_something_else_is_far_from_the_floor() -> None:
    assert read("User Safety: safe\nSafety Categories: Threat", 19.0).floor_score < 0.01


def test_a_surely_safe_side_is_not_asked() -> None:
    """At 0.02 no name could lift the product to the threshold of 0.1."""
    assert read(f"User Safety: safe\n{FLOOR_LINE}", 16.0).floor_score == 0.0


def test_the_probability_of_the_name_counts_by_that_of_unsafe() -> None:
    """Unsafe at 0.73, and the floor's name is likely behind it."""
    reading = read(f"User Safety: unsafe\n{FLOOR_LINE}", 19.0, rival=ANSWER.safe)
    assert reading.user.label == "unsafe"
    assert reading.floor_score == pytest.approx(LIKELY * NAME, abs=0.01)


def test_a_category_line_that_its_budget_cut_off_says_so() -> None:
    line = "User Safety: unsafe\nSafety Categories: Violence, Threat"
    assert read(line).categories_complete
    assert not read(line, budget=2).categories_complete


def test_a_trace_carries_the_floor_and_the_completeness_read_behind_it() -> None:
    reading = ScoreResult(
        user=Side(label="unsafe", score=0.9),
        response=None,
        categories_complete=False,
        floor_score=0.4,
    )
    thought = concluded("The user message is unsafe.", reading)
    assert (thought.floor_score, thought.categories_complete) == (0.4, False)
