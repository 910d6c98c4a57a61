"""Labels come from logits where the constant text is what the model writes, else from its words."""

from __future__ import annotations

import math

import pytest

from tests.support.checkpoints import make_tokenizer
from tests.support.script_model import ScriptModel
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.local.batch_scoring import plain_reader
from worker.judge.local.label_scores import Limits, answer_tokens, side
from worker.judge.local.loading import encoder
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import Context
from worker.policy.passes import builtin_rubric

TOKENIZER = make_tokenizer()
ENCODE = encoder(TOKENIZER)
MARK = TOKENIZER.convert_tokens_to_ids("<unused17>")
ANSWER = answer_tokens(ENCODE, [TOKENIZER.eos_token_id])
RUBRIC = builtin_rubric(())


def read(
    text: str, *, response: bool = False, threshold: float = 0.5, **model: object
) -> ScoreResult | Undecided:
    """The reading of one context behind which the model writes ``text``."""
    script = [*ENCODE(text), TOKENIZER.eos_token_id]
    scripted = ScriptModel(len(TOKENIZER), MARK, script, **model)  # type: ignore[arg-type]
    reader = plain_reader(scripted, ANSWER, TOKENIZER, Limits(4, 1000))
    context = Context((*ENCODE("the prompt"), MARK))
    return reader.read([ScoreRequest(context, response, RUBRIC, threshold)])[0]


@pytest.mark.parametrize(
    ("text", "user", "response", "names"),
    [
        ("User Safety: safe", "safe", None, []),
        ("User Safety: unsafe\nSafety Categories: Violence", "unsafe", None, ["Violence"]),
        ("User Safety: safe\nResponse Safety: safe", "safe", "safe", []),
        (
            "User Safety: safe\nResponse Safety: unsafe\nSafety Categories: Malware, Threat",
            "safe",
            "unsafe",
            ["Malware", "Threat"],
        ),
        (
            "User Safety: unsafe\nResponse Safety: safe\nSafety Categories: PII/Privacy",
            "unsafe",
            "safe",
            ["PII/Privacy"],
        ),
        (
            "User Safety: unsafe\nResponse Safety: unsafe\nSafety Categories: Sexual (minor)",
            "unsafe",
            "unsafe",
            ["Sexual (minor)"],
        ),
    ],
)
def test_a_well_formed_answer_is_read_without_writing_it(
    text: str, user: str, response: str | None, names: list[str]
) -> None:
    """Labels, scores near 0 or 1, and the categories with probabilities near 1."""
    reading = read(text, response=response is not None)
    assert isinstance(reading, ScoreResult)
    assert reading.user.label == user
    assert (reading.response and reading.response.label) == response
    assert [category.name for category in reading.categories] == names
    assert all(category.score and category.score > 0.99 for category in reading.categories)
    assert reading.user.score == pytest.approx(1.0 if user == "unsafe" else 0.0, abs=1e-3)


def test_the_score_is_the_softmax_over_the_two_labels() -> None:
    reading = read("User Safety: safe", sharpness=12.0, rivals=[(ANSWER.unsafe, 11.0)])
    assert isinstance(reading, ScoreResult)
    assert reading.user.score == pytest.approx(1 / (1 + math.e), abs=1e-6)
    assert side(0.0, 0.0).label == "unsafe"


def test_the_floor_named_first_or_later_has_its_full_names_probability() -> None:
    first = read("User Safety: unsafe\nSafety Categories: Sexual (minor)")
    later = read("User Safety: unsafe\nSafety Categories: Violence, Sexual (minor)")
    absent = read("User Safety: unsafe\nSafety Categories: Sexual")
    assert isinstance(first, ScoreResult)
    assert isinstance(later, ScoreResult)
    assert isinstance(absent, ScoreResult)
    assert first.floor_score > 0.99
    assert later.floor_score > 0.99
    assert absent.floor_score < 0.01


def test_a_floor_that_greedy_decoding_just_misses_behind_another_category_is_seen() -> None:
    """The line stops at one category, and would go on to the floor with probability 0.27."""
    text = "User Safety: unsafe\nSafety Categories: Violence"
    likely = [(token, 60.0) for token in ANSWER.floor]
    comma = (ANSWER.comma[0], 19.0)
    seen = read(text, after=[comma], then=likely)
    unseen = read(text)
    assert isinstance(seen, ScoreResult)
    assert isinstance(unseen, ScoreResult)
    assert [category.name for category in seen.categories] == ["Violence"]
    assert seen.floor_score == pytest.approx(1 / (1 + math.e) / 2 ** len(ANSWER.floor), rel=0.01)
    assert unseen.floor_score < 0.01


def test_an_unsafe_by_threshold_alone_still_gets_its_categories() -> None:
    """Greedily safe at 0.27, unsafe from 0.2 on: the label stays, the categories are asked for."""
    text = "User Safety: safe\nSafety Categories: Threat"
    rivals = [(ANSWER.unsafe, 19.0)]
    low = read(text, threshold=0.2, rivals=rivals)
    high = read(text, threshold=0.5, rivals=rivals)
    assert isinstance(low, ScoreResult)
    assert isinstance(high, ScoreResult)
    assert low.user == high.user
    assert low.user.label == "safe"
    assert [category.name for category in low.categories] == ["Threat"]
    assert high.categories == ()


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("I would say this is fine.", False),
        ("Final Answer: User Safety: safe", False),
        ("UserUser Safety: safe", False),
        ("User Safety: undetermined", False),
        ("", False),
        ("User Safety: safe", True),
        ("User Safety: safe\nResponse: safe", True),
    ],
)
def test_an_answer_in_another_format_is_undecided_and_never_safe(text: str, response: bool) -> None:
    """The model is not talked into a label that it would not have written."""
    reading = read(text, response=response)
    assert isinstance(reading, Undecided)
    assert reading.reason is UndecidedReason.MALFORMED_OUTPUT


def test_an_answer_behind_other_white_space_is_written_and_parsed() -> None:
    """A line end in front of the first field: decoded, with the score of the label's own token."""
    reading = read("\nUser Safety: unsafe\nSafety Categories: Violence")
    assert isinstance(reading, ScoreResult)
    assert reading.user.label == "unsafe"
    assert reading.user.score > 0.99
    assert reading.tokens > 0


@pytest.mark.parametrize(
    "text",
    [
        "user safety: safe",
        "User  Safety : safe",
        "<think>\nUser Safety: unsafe, it seems.\n</think>User Safety: safe",
    ],
)
def test_a_written_label_has_the_score_of_its_own_token_however_its_line_is_spelled(
    text: str,
) -> None:
    """Not that of a line in a trace, and never the surest score because none was looked for: a
    threshold, and the floor, hang on it."""
    reading = read(text, rivals=[(ANSWER.unsafe, 19.5)])
    assert isinstance(reading, ScoreResult)
    assert reading.tokens > 0, "it was read without being written"
    assert reading.user.label == "safe"
    assert reading.user.score == pytest.approx(1 / (1 + math.exp(0.5)), abs=1e-3)


def test_safe_in_a_spelling_of_its_own_while_unsafe_is_likelier_is_undecided() -> None:
    """Between the labels' own tokens the other one was ahead: that is no safe answer."""
    reading = read("User Safety: SAFE", rivals=[(ANSWER.unsafe, 19.0)])
    assert isinstance(reading, Undecided)
    assert reading.reason is UndecidedReason.MALFORMED_OUTPUT
    other = read("User Safety: UNSAFE", rivals=[(ANSWER.safe, 19.0)])
    assert isinstance(other, ScoreResult)
    assert other.user.label == "unsafe"
    assert other.user.score == 1.0
