"""What servers write, and what is read from it: a label with its score, or the reason for none."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable

import pytest

from tests.support.openai_server import Body, Fault, OpenAIServer, Written, WrittenToken
from tests.support.openai_writers import ScriptWriter, script, token
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import Judgement, JudgeRequest, Rubric, ThinkPlan
from worker.policy.passes import builtin_rubric

STOCK = builtin_rubric(())
USER = token("User Safety:")
SAFE = token(" safe", 0.98, {" unsafe": 0.01})
UNSAFE = token(" unsafe", 0.9, {" safe": 0.1})
ScoreRequest = Callable[..., Awaitable[Judgement]]


@pytest.fixture
def ask(
    serve: Callable[..., Awaitable[OpenAIServer]],
    judge_of: Callable[..., Awaitable[RemoteJudge]],
) -> ScoreRequest:
    """Judges one event whose answer is written by hand; every other question gets a good one."""

    async def ask(
        *tokens: WrittenToken,
        fault: Fault | None = None,
        response: str | None = None,
        rubric: Rubric = STOCK,
        **fields: str,
    ) -> Judgement:
        def answer(body: Body) -> Written:
            asked = "the case" in body["messages"][0]["content"]
            return script(*tokens, **fields) if asked else script(USER, SAFE)

        server = await serve(ScriptWriter(answer))
        judge = await judge_of(server)
        if fault is not None:
            server.faults["the case"] = fault
        return await judge.judge(
            JudgeRequest(
                user="the case",
                response=response,
                rubric=rubric,
                # So low that scores may be looked at: what counts as safe must be floor-checked.
                think=ThinkPlan(threshold=0.05),
            )
        )

    return ask


async def refusal(asked: Awaitable[Judgement]) -> UndecidedReason:
    with pytest.raises(Undecided) as caught:
        await asked
    return caught.value.reason


async def test_the_score_is_the_share_of_unsafe_in_both_labels(ask: ScoreRequest) -> None:
    judged = await ask(USER, token(" safe", 0.6, {" unsafe": 0.2, " maybe": 0.2}))
    assert judged.user.label == "safe"
    assert judged.user.score == pytest.approx(0.25)


async def test_each_side_has_its_own_score(ask: ScoreRequest) -> None:
    response = (token("\n"), token("Response Safety:"), token(" unsafe", 0.8, {" safe": 0.2}))
    line = (token("\nSafety Categories:"), token(" Violence", 0.9, {" Threat": 0.05}))
    judged = await ask(USER, SAFE, *response, *line, response="an answer")
    assert judged.user.label == "safe"
    assert judged.response is not None
    assert judged.response.score == pytest.approx(0.8)
    assert [each.name for each in judged.categories] == ["Violence"]
    assert judged.categories[0].score == pytest.approx(0.9)


@pytest.mark.parametrize(
    "tokens",
    [
        # One token, the blank part of the colon's.
        [token("User Safety: "), token("safe", 0.7, {"unsafe": 0.3})],
        # The blank by itself.
        [USER, token(" "), token("safe", 0.7, {"unsafe": 0.3})],
        # In pieces: what counts is where the two part.
        [USER, token(" ", 1.0), token("sa", 0.7, {"un": 0.3}), token("fe", 1.0)],
        # Letter by letter, the word in one token beside it.
        [USER, token(" s", 0.6, {" unsafe": 0.3, " safe": 0.1}), token("afe", 1.0)],
        # The colon a token of its own, and in the label's alternatives.
        [token("User"), token(" Safety"), token(":"), token(" safe", 0.7, {" unsafe": 0.3})],
    ],
)
async def test_labels_are_scored_however_they_are_cut_into_tokens(
    ask: ScoreRequest, tokens: list[WrittenToken]
) -> None:
    """Tokenizers differ; P(unsafe) does not."""
    judged = await ask(*tokens)
    assert judged.user.score == pytest.approx(0.3, abs=0.005)


async def test_a_label_that_is_not_listed_gets_the_most_it_can_have(ask: ScoreRequest) -> None:
    """``unsafe`` below twenty alternatives may be as likely as the last of them, and no more."""
    others = {f"word{n}": 0.001 for n in range(10)}
    judged = await ask(USER, token(" safe", 0.97, others))
    assert judged.user.score == pytest.approx(0.001 / 0.971)


async def test_words_that_only_begin_like_a_label_do_not_count(ask: ScoreRequest) -> None:
    judged = await ask(USER, token(" safe", 0.6, {" unsafely": 0.3, " unsafe": 0.1}))
    assert judged.user.score == pytest.approx(0.1 / 0.7)


async def test_a_name_scores_the_product_of_its_tokens(ask: ScoreRequest) -> None:
    names = (token(" PII", 0.8), token("/Privacy", 0.5), token(",", 0.7), token(" Threat", 0.4))
    judged = await ask(USER, UNSAFE, token("\nSafety Categories:"), *names)
    assert [each.name for each in judged.categories] == ["PII/Privacy", "Threat"]
    assert [each.score for each in judged.categories] == pytest.approx([0.4, 0.4])


async def test_letters_of_several_bytes_may_be_cut_between_tokens(ask: ScoreRequest) -> None:
    """Byte tokens spell no text alone; their bytes do."""
    cut = [[0xC3], [0xA9]]

    def bytewise(body: Body) -> None:
        content = body["choices"][0]["logprobs"]["content"]
        end = content.pop()
        for piece in cut:
            content.append({"token": "�", "logprob": -0.5, "bytes": piece, "top_logprobs": []})
        content.append(end)
        body["choices"][0]["message"]["content"] += "é"

    line = token("\nSafety Categories: caf")
    rubric = Rubric(mode="policy", text="p", categories=("café",), sha256="")
    judged = await ask(USER, UNSAFE, line, fault=Fault(change=bytewise), rubric=rubric)
    assert judged.categories[0].name == "café"
    assert judged.categories[0].score == pytest.approx(0.99 * math.exp(-1.0))


@pytest.mark.parametrize(
    "text",
    [
        "I cannot help with that.",
        "",
        "The user message is safe.",
        "Safety: safe",
        "Response: safe",
        "User Safety: undetermined",
        "User Safety: safe or unsafe rating of the user input",
        "User Safety: safe\nUser Safety: unsafe",
        "UserUser Safety: safe\nUser Safety: safe",
        "Final Answer: User Safety: safe",
        '{"User Safety": "safe"}',
        "<think>\nUser Safety: safe\n",
        "safe",
    ],
)
async def test_prose_in_place_of_labels_is_undecided(ask: ScoreRequest, text: str) -> None:
    """Every malformed output known of the model is undecided, and none of them is safe."""
    asked = ask(token(text, 0.9, {" safe": 0.1}))
    assert await refusal(asked) is UndecidedReason.MALFORMED_OUTPUT


async def test_a_response_without_a_label_is_undecided(ask: ScoreRequest) -> None:
    asked = ask(USER, SAFE, response="an answer")
    assert await refusal(asked) is UndecidedReason.MALFORMED_OUTPUT


async def test_a_label_for_a_response_nobody_sent_is_passed_over(ask: ScoreRequest) -> None:
    judged = await ask(USER, SAFE, token("\nResponse Safety:"), UNSAFE)
    assert (judged.user.label, judged.response) == ("safe", None)


async def test_a_category_behind_a_safe_label_changes_nothing(ask: ScoreRequest) -> None:
    judged = await ask(USER, SAFE, token("\nSafety Categories: Needs Caution"))
    assert (judged.user.label, judged.categories) == ("safe", ())


def _drop(field: str) -> Callable[[Body], None]:
    def drop(body: Body) -> None:
        body["choices"][0].pop(field)

    return drop


def _without_alternatives(body: Body) -> None:
    for each in body["choices"][0]["logprobs"]["content"]:
        each["top_logprobs"] = []


def _of_another_text(body: Body) -> None:
    body["choices"][0]["logprobs"]["content"][1] |= {"token": " green", "bytes": list(b" green")}


def _other_likelier(body: Body) -> None:
    place = body["choices"][0]["logprobs"]["content"][1]
    place["logprob"], place["top_logprobs"][1]["logprob"] = -3.0, -0.05
    place["top_logprobs"][0]["logprob"] = -3.0


@pytest.mark.parametrize(
    "change",
    [
        _drop("logprobs"),
        _without_alternatives,
        _of_another_text,
        _other_likelier,
        lambda body: body["choices"][0].update(logprobs={"content": []}),
        lambda body: body["choices"][0].update(logprobs={"content": None}),
        lambda body: body["choices"][0]["message"].update(content=None),
        lambda body: body.update(choices=[]),
        lambda body: body.pop("choices"),
        lambda body: body["choices"][0]["logprobs"]["content"][1].update(bytes=[999]),
    ],
    ids=[
        *("no logprobs", "no alternatives", "another text", "another label likelier", "no tokens"),
        *("null tokens", "no content", "no choice", "no choices", "no bytes"),
    ],
)
async def test_an_answer_whose_score_cannot_be_known_is_undecided(
    ask: ScoreRequest, change: Callable[[Body], None]
) -> None:
    """A label alone is no verdict: there is no score to hold against a threshold."""
    asked = ask(USER, SAFE, fault=Fault(change=change))
    assert await refusal(asked) is UndecidedReason.MALFORMED_OUTPUT


@pytest.mark.parametrize("raw", [b"", b"<html>", b"{", b"[]", b'{"choices": 3}', b"\xff\xfe"])
async def test_a_body_that_is_no_completion_is_undecided(ask: ScoreRequest, raw: bytes) -> None:
    assert await refusal(ask(USER, SAFE, fault=Fault(raw=raw))) is UndecidedReason.MALFORMED_OUTPUT


@pytest.mark.parametrize("value", ["NaN", "Infinity", "0.7"])
async def test_numbers_that_are_no_logprobs_are_undecided(ask: ScoreRequest, value: str) -> None:
    completion = {
        "choices": [
            {
                "message": {"content": "User Safety: safe"},
                "logprobs": {"content": [{"token": "User Safety: safe", "logprob": "VALUE"}]},
            }
        ]
    }
    raw = json.dumps(completion).replace('"VALUE"', value).encode()
    reason = await refusal(ask(USER, SAFE, fault=Fault(raw=raw)))
    assert reason in (UndecidedReason.MALFORMED_OUTPUT, UndecidedReason.NOT_FINITE)


async def test_an_answer_cut_off_before_its_label_is_undecided(ask: ScoreRequest) -> None:
    asked = ask(USER, finish="length")
    assert await refusal(asked) is UndecidedReason.MALFORMED_OUTPUT


async def test_a_category_line_that_was_cut_off_is_never_complete(ask: ScoreRequest) -> None:
    """So suppression clears nothing for it: a category may be missing."""
    line = token("\nSafety Categories: Violence")
    judged = await ask(USER, UNSAFE, line, finish="length")
    assert judged.user.label == "unsafe"
    assert not judged.categories_complete


async def test_a_servers_own_filter_makes_the_event_undecided(ask: ScoreRequest) -> None:
    def filtered(body: Body) -> None:
        body["choices"][0].update(finish_reason="content_filter", message={"content": ""})

    reason = await refusal(ask(USER, SAFE, fault=Fault(change=filtered)))
    assert reason is UndecidedReason.JUDGE_REJECTED


async def test_unsafe_without_a_category_is_unsafe_and_never_cleared(ask: ScoreRequest) -> None:
    judged = await ask(USER, UNSAFE)
    assert judged.user.label == "unsafe"
    assert judged.categories == ()
    assert not judged.categories_complete
