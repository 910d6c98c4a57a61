"""A prompt is tokenised in segments that spell what the whole prompt spells, and begin with the
policy whatever follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judge.conformance import IMAGE, RUBRICS, request
from worker.judge.local.loading import Checkpoint, encoder, load
from worker.judge.local.prompt import Prompter, _Shape
from worker.judge.local.segments import cut
from worker.judgement import Rubric
from worker.policy.passes import make_rubric
from worker.settings import JudgeSettings

LINES = (
    "<bos>Policy.\nBe kind.\n<BEGIN>\nuser: {user}{response}\n<END>\nAnswer:\n\nUser Safety\nOut:"
)


@pytest.fixture(scope="module", params=["random", "tiny"])
def prompter(request: pytest.FixtureRequest, checkpoint: Path) -> Prompter:
    """Over both tokenizers there are: one spells line by line, one has tokens that span lines."""
    model = str(checkpoint) if request.param == "random" else "tiny"
    return Prompter(load(JudgeSettings(model=model)), context_budget=256)


def checkpoint_of(prompter: Prompter) -> Checkpoint:
    return prompter._checkpoint


TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["\n", "\n\n", " ", "user:", "Output", "<b>", "é", "中", "🙂", "a", ":", ".", "S1"]
    )
).map("".join)


@settings(max_examples=150, deadline=None)
@given(user=TEXTS, response=st.none() | TEXTS, image=st.booleans(), rubric=st.sampled_from(RUBRICS))
def check_joined(
    prompter: Prompter, user: str, response: str | None, image: bool, rubric: Rubric
) -> None:
    if not user.strip() and not image:
        user = "a"
    asked = request(user, response=response, image=IMAGE if image else None, rubric=rubric)
    prepared = prompter.prepare(asked)
    shape = _Shape(rubric.mode, rubric.text, prepared.response is not None, image, False)
    whole = prompter._render(shape, prepared.user, prepared.response)
    assert prepared.context.ids == tuple(encoder(checkpoint_of(prompter).tokenizer)(whole))
    assert prepared.context.policy > 0


def test_joining_never_differs_from_tokenising_the_whole(prompter: Prompter) -> None:
    """Whatever users write, in any script, with line breaks at either end, beside images."""
    check_joined(prompter)


@pytest.mark.parametrize("rubric", RUBRICS, ids=["stock", "suppressed", "taxonomy", "policy"])
def test_every_event_of_a_policy_begins_with_the_tokens_that_were_warmed(
    prompter: Prompter, rubric: Rubric
) -> None:
    """With and without response, image and thinking: one policy, computed once."""
    warmed = prompter.policy_ids(rubric)
    assert warmed
    for response in (None, "Certainly."):
        for image in (None, IMAGE):
            prepared = prompter.prepare(
                request("Hello", response=response, image=image, rubric=rubric)
            )
            for context in (prepared.context, prompter.thinking(prepared)):
                assert context.ids[: context.policy] == warmed


def test_policies_that_end_in_line_breaks_are_cut_too(prompter: Prompter) -> None:
    """A policy's own text may end as it likes."""
    for end in ("", "\n", "\n\n", " ", "\n- "):
        rubric = make_rubric("policy", f"Judge this.\n\n### Policy\nName: x{end}", ("x",))
        prepared = prompter.prepare(request("Hello", rubric=rubric))
        assert prepared.context.ids[: prepared.context.policy] == prompter.policy_ids(rubric)


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def joined_by(*tokens: str) -> Callable[[str], Sequence[int]]:
    """A tokenizer of letters in which each of these texts is one token."""

    def encode(text: str) -> list[int]:
        for number, token in enumerate(tokens):
            text = text.replace(token, chr(0xE000 + number))
        return letters(text)

    return encode


def render(user: str, response: str | None) -> str:
    answer = "" if response is None else f"\nresponse: {response}"
    return LINES.format(user=user, response=answer)


@pytest.mark.parametrize("response", [False, True])
def test_tokens_that_span_lines_move_the_cut_and_do_not_prevent_it(response: bool) -> None:
    """The next line break that no token spans is taken, on either side."""
    nearest = cut(render, letters, response=response)
    spanned = cut(render, joined_by("\n<BEGIN>\n", "\n<END>\nAnswer:\n\n"), response=response)
    assert nearest is not None
    assert spanned is not None
    assert (nearest.before, nearest.behind) == ("<BEGIN>\nuser: ", "\n<END>\n")
    assert (spanned.before, spanned.behind) == ("\n<BEGIN>\nuser: ", "\n<END>\nAnswer:\n\n")


def test_a_prompt_that_no_cut_leaves_alone_is_not_cut() -> None:
    """A token that depends on what stands far behind it, or an event that is written twice."""

    def summed(text: str) -> list[int]:
        return [len(text), *letters(text)]

    assert cut(render, summed, response=False) is None
    assert cut(lambda user, _: f"{LINES}{user}{user}", letters, response=False) is None
    assert cut(lambda user, _: f"policy: {user}", letters, response=False) is None
