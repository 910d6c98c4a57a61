"""The floor over HTTP: what might break it is asked about, and never safe because nobody asked.

The server here has a real tokenizer, and answers as it is scripted for each preferred token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.support.openai_server import Body, OpenAIServer, Written, WrittenToken
from tests.support.openai_writers import CheckpointWriter, ScriptWriter, script, token
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.guard.taxonomy import FLOOR
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import Judgement, JudgeRequest, ThinkPlan
from worker.policy.floor import FLOOR_THRESHOLD
from worker.policy.passes import builtin_rubric

pytestmark = pytest.mark.model

USER, LINE = token("User Safety:"), token("\nSafety Categories:")
NAME = f" {FLOOR}"
STOCK = builtin_rubric(())
Script = dict[frozenset[str], tuple[WrittenToken, ...]]
Ask = Callable[..., Awaitable[Judgement]]


def unsafe(score: float) -> WrittenToken:
    """The label as it is written: the likelier one."""
    text, other = (" unsafe", " safe") if score >= 0.5 else (" safe", " unsafe")
    return token(text, max(score, 1 - score), {other: min(score, 1 - score)})


@pytest.fixture
def ask(
    serve: Callable[..., Awaitable[OpenAIServer]],
    judge_of: Callable[..., Awaitable[RemoteJudge]],
    tiny_writer: CheckpointWriter,
) -> Ask:
    """Judges one event. ``answers`` maps the tokens that are preferred to what is then written."""

    async def ask(answers: Script, *, threshold: float = 0.5, blind: bool = False) -> Judgement:
        tokenizer = tiny_writer.tokenizer

        def answer(body: Body) -> Written:
            if "the case" not in body["messages"][0]["content"]:
                return script(USER, unsafe(0.001))
            preferred = [tokenizer.decode([int(each)]) for each in body.get("logit_bias") or {}]
            return script(*answers[frozenset(preferred)])

        like = None if blind else tiny_writer
        judge = await judge_of(await serve(ScriptWriter(answer, like=like)))
        plan = ThinkPlan(threshold=threshold)
        return await judge.judge(
            JudgeRequest(user="the case", response=None, rubric=STOCK, think=plan)
        )

    return ask


async def test_a_safe_label_with_a_doubt_is_asked_for_its_category(ask: Ask) -> None:
    """P(unsafe) 0.3 is safe, but with the floor's name behind it the product is its score."""
    judged = await ask(
        {
            frozenset(): (USER, unsafe(0.3)),
            frozenset({" unsafe"}): (USER, token(" unsafe", 0.3), LINE, token(NAME, 0.8)),
        }
    )
    assert judged.user.label == "safe"
    assert judged.floor_score == pytest.approx(0.24, abs=0.01)
    assert judged.categories == ()


async def test_a_doubt_about_something_else_leaves_it_safe(ask: Ask) -> None:
    judged = await ask(
        {
            frozenset(): (USER, unsafe(0.3)),
            frozenset({" unsafe"}): (
                *(USER, token(" unsafe", 0.3), LINE),
                token(" Profanity", 0.9, {" Threat": 0.05, NAME: 0.01}),
            ),
        }
    )
    assert judged.user.label == "safe"
    assert judged.floor_score < FLOOR_THRESHOLD


async def test_a_sure_safe_label_costs_one_question(ask: Ask) -> None:
    """Below the floor's threshold no name could break it; the script knows no second answer."""
    judged = await ask({frozenset(): (USER, unsafe(0.09))})
    assert (judged.user.label, judged.floor_score) == ("safe", 0.0)


async def test_unsafe_by_a_low_threshold_gets_its_category(ask: Ask) -> None:
    judged = await ask(
        {
            frozenset(): (USER, unsafe(0.3)),
            frozenset({" unsafe"}): (USER, token(" unsafe", 0.3), LINE, token(" Threat", 0.97)),
        },
        threshold=0.2,
    )
    assert [each.name for each in judged.categories] == ["Threat"]
    assert judged.user.score == pytest.approx(0.3)


async def test_a_floor_name_behind_a_suppressed_one_is_found(ask: Ask) -> None:
    """The line stops at a suppressed name; what would stand behind its comma is asked for."""
    first = (USER, unsafe(0.95), LINE, token(" Profanity", 0.9, {" Threat": 0.05}))
    ended = WrittenToken("<end_of_turn>", -0.5, (("<end_of_turn>", -0.5), (",", -1.0)))
    comma = WrittenToken(",", -1.0, (("<end_of_turn>", -0.5), (",", -1.0)))
    judged = await ask(
        {
            frozenset(): (*first, ended),
            frozenset({","}): (*first, comma, token(NAME, 0.7, {" Threat": 0.2})),
        }
    )
    assert judged.floor_score == pytest.approx(0.95 * 0.368 * 0.7, abs=0.01)


async def test_a_comma_that_leads_elsewhere_breaks_nothing(ask: Ask) -> None:
    """A second category is likely, the floor is not: suppression may clear the event."""
    first = (USER, unsafe(0.95), LINE, token(" Profanity", 0.9, {" Threat": 0.05}))
    ended = WrittenToken("<end_of_turn>", -0.5, (("<end_of_turn>", -0.5), (",", -1.0)))
    comma = WrittenToken(",", -1.0, (("<end_of_turn>", -0.5), (",", -1.0)))
    judged = await ask(
        {
            frozenset(): (*first, ended),
            frozenset({","}): (*first, comma, token(" Threat", 0.9, {NAME: 0.001})),
        }
    )
    assert judged.floor_score < FLOOR_THRESHOLD
    assert judged.categories_complete


async def test_a_server_that_does_not_prefer_as_asked_clears_nothing(ask: Ask) -> None:
    """It ignores ``logit_bias``: a doubt stays undecided, and a suppressed name is not enough."""
    ended = WrittenToken("<end_of_turn>", -0.5, (("<end_of_turn>", -0.5), (",", -1.0)))
    same = (USER, unsafe(0.95), LINE, token(" Profanity", 0.9, {" Threat": 0.05}), ended)
    judged = await ask({frozenset(): same, frozenset({","}): same})
    assert judged.user.label == "unsafe"
    assert not judged.categories_complete
    doubt = (USER, unsafe(0.3))
    with pytest.raises(Undecided) as caught:
        await ask({frozenset(): doubt, frozenset({" unsafe"}): doubt})
    assert caught.value.reason is UndecidedReason.FLOOR_UNCHECKED


async def test_without_a_tokenizer_a_doubt_is_undecided(ask: Ask) -> None:
    """The label cannot be preferred where its token is not known: not safe, not guessed."""
    with pytest.raises(Undecided) as caught:
        await ask({frozenset(): (USER, unsafe(0.3))}, blind=True)
    assert caught.value.reason is UndecidedReason.FLOOR_UNCHECKED


async def test_without_a_tokenizer_a_named_floor_counts(ask: Ask) -> None:
    first = (USER, unsafe(0.95), LINE, token(NAME, 0.8, {" Sexual": 0.1}))
    judged = await ask({frozenset(): first}, blind=True)
    assert judged.floor_score == pytest.approx(0.76, abs=0.01)


async def test_without_a_tokenizer_a_name_that_might_be_the_floors_clears_nothing(
    ask: Ask,
) -> None:
    first = (USER, unsafe(0.95), LINE, token(" Profanity", 0.6, {" Sexual": 0.3}))
    judged = await ask({frozenset(): first}, blind=True)
    assert not judged.categories_complete
    assert judged.floor_score < FLOOR_THRESHOLD


async def test_unsafe_without_a_category_line_says_that_the_floor_was_not_asked(ask: Ask) -> None:
    """So that a stricter threshold gives no milder action than a lax one: it is held for it."""
    judged = await ask({frozenset(): (USER, unsafe(0.95))}, blind=True)
    assert judged.user.label == "unsafe"
    assert not judged.floor_asked
    named = (USER, unsafe(0.95), LINE, token(" Profanity", 0.999, {" Threat": 0.0001}))
    assert (await ask({frozenset(): named}, blind=True)).floor_asked
