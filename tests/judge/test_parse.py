"""A written answer is read strictly: what is malformed is undecided, never a guess."""

from __future__ import annotations

import pytest

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.guard.answer import parse_answer, split_categories, split_trace
from worker.judgement import Rubric
from worker.policy.passes import builtin_rubric

BUILTIN = builtin_rubric(())
LAYOFFS = "Employment actions (layoff list, disciplinary action, firing, demotion)"
POLICY = Rubric(
    mode="policy", text="...", categories=(LAYOFFS, "private company", "PV-3"), sha256=""
)


@pytest.mark.parametrize(
    ("text", "user", "response", "categories"),
    [
        ("User Safety: safe", "safe", None, ()),
        ("User Safety: unsafe", "unsafe", None, ()),
        ("User Safety: safe\nResponse Safety: safe", "safe", "safe", ()),
        (
            "User Safety: unsafe\nResponse Safety: safe\nSafety Categories: Violence, Threat",
            "unsafe",
            "safe",
            ("Violence", "Threat"),
        ),
        ("  user safety : UNSAFE, as it asks for a weapon", "unsafe", None, ()),
        ("<think>\nThe user asks.\n\n\n</think>User Safety: safe", "safe", None, ()),
        ("<think>\nThe user asks.\n</think>\nUser Safety: safe", "safe", None, ()),
    ],
)
def test_well_formed_answers_are_read_as_they_stand(
    text: str, user: str, response: str | None, categories: tuple[str, ...]
) -> None:
    answer = parse_answer(text, response=response is not None, rubric=BUILTIN)
    assert (answer.user, answer.response, answer.categories) == (user, response, categories)


@pytest.mark.parametrize(
    ("why", "text", "response", "think"),
    [
        ("trace cut off by the budget", "<think>\nThe user asks about", False, True),
        ("verdict inside an unclosed trace", "<think>\nUser Safety: safe\n", False, True),
        ("nothing after the trace", "<think>\nUser Safety: unsafe\n</think>", False, True),
        ("trace without tags where one was asked for", "Thoughts.\nUser Safety: safe", False, True),
        ("glued field name", "UserUser Safety: safe", False, False),
        ("prefix in front of the field", "Final Answer: User Safety: safe", False, False),
        ("short response field", "User Safety: safe\nResponse: safe", True, False),
        ("response line left out", "User Safety: safe", True, False),
        (
            "echo of the format",
            "User Safety: safe or unsafe rating of the user input",
            False,
            False,
        ),
        ("another value", "User Safety: undetermined", False, False),
        ("a longer word", "User Safety: safely", False, False),
        ("JSON of the predecessor", '{"User Safety": "safe"}', False, False),
        ("duplicates that agree", "User Safety: safe\nUser Safety: safe", False, False),
        ("duplicates that differ", "User Safety: safe\nUser Safety: unsafe", False, False),
        ("duplicate in prose", "User Safety: safe\nso User Safety: safe", False, False),
        (
            "duplicate response",
            "User Safety: safe\nResponse Safety: safe\nResponse Safety: unsafe",
            True,
            False,
        ),
        ("categories alone", "Safety Categories: Violence", False, False),
        ("labels of the predecessor", "Prompt harm: harmful", False, False),
        ("nothing", "", False, False),
        ("prose", "I cannot help with that.", False, False),
    ],
)
def test_malformed_answers_are_undecided(why: str, text: str, response: bool, think: bool) -> None:
    with pytest.raises(Undecided) as caught:
        parse_answer(text, response=response, rubric=BUILTIN, think=think)
    assert caught.value.reason is UndecidedReason.MALFORMED_OUTPUT, why


def test_only_what_follows_the_last_closing_tag_counts() -> None:
    """A trace may quote verdicts, even closing tags; the answer stands behind the last one."""
    text = "<think>\nUser Safety: safe\n</think> no\nUser Safety: safe</think>User Safety: unsafe"
    answer = parse_answer(text, response=False, rubric=BUILTIN, think=True)
    assert answer.user == "unsafe"
    assert answer.trace == "User Safety: safe\n</think> no\nUser Safety: safe"


def test_a_response_line_nobody_asked_for_is_ignored() -> None:
    answer = parse_answer(
        "User Safety: safe\nResponse Safety: unsafe", response=False, rubric=BUILTIN
    )
    assert (answer.user, answer.response) == ("safe", None)


def test_a_verdict_is_never_inferred_from_the_category_line() -> None:
    """Two safe labels with a category are safe, and the category is not reported."""
    answer = parse_answer(
        "User Safety: safe\nSafety Categories: Needs Caution", response=False, rubric=BUILTIN
    )
    assert (answer.user, answer.categories) == ("safe", ())


@pytest.mark.parametrize(
    ("line", "rubric", "names"),
    [
        ("Violence, Threat", BUILTIN, ("Violence", "Threat")),
        ("Criminal Planning/Confessions", BUILTIN, ("Criminal Planning/Confessions",)),
        ("S3", BUILTIN, ("Criminal Planning/Confessions",)),
        ("S7, S1", BUILTIN, ("Sexual (minor)", "Violence")),
        ("S1: Violence", BUILTIN, ("Violence",)),
        ("sexual minor", BUILTIN, ("Sexual (minor)",)),
        ("Sexual (minor), Sexual", BUILTIN, ("Sexual (minor)", "Sexual")),
        ("Guns/Illegal Weapons", BUILTIN, ("Guns and Illegal Weapons",)),
        ("High Risk Gov. Decision Making", BUILTIN, ("High Risk Gov Decision Making",)),
        ("VIOLENCE.", BUILTIN, ("Violence",)),
        ("Violence, Violence", BUILTIN, ("Violence",)),
        (", ,Violence,", BUILTIN, ("Violence",)),
        ("", BUILTIN, ()),
        ("Something new", BUILTIN, ("Something new",)),
        ("Profanity", builtin_rubric(("Profanity",)), ("Profanity",)),
        ("S12", builtin_rubric(("Profanity",)), ("Profanity",)),
        (
            "S1",
            Rubric(mode="taxonomy", text="S1: Trade Secrets. x", categories=(), sha256=""),
            ("Trade Secrets. x",),
        ),
        (
            "trade secret leak",
            Rubric(
                mode="taxonomy",
                text="- Trade Secret Leak (own)",
                categories=("Trade Secret Leak",),
                sha256="",
            ),
            ("Trade Secret Leak",),
        ),
        (f"{LAYOFFS}, private company", POLICY, (LAYOFFS, "private company")),
        (
            "hiring plans (juniors, seniors), PV-3",
            POLICY,
            ("hiring plans (juniors, seniors)", "PV-3"),
        ),
        ("an open (bracket, PV-3", POLICY, ("an open (bracket", "PV-3")),
        ("PHONE_1, API keys", POLICY, ("PHONE_1", "API keys")),
    ],
)
def test_categories_keep_their_own_commas_and_get_their_own_names(
    line: str, rubric: Rubric, names: tuple[str, ...]
) -> None:
    assert tuple(named.name for named in split_categories(line, rubric)) == names


def test_the_trace_is_told_from_the_answer() -> None:
    assert split_trace("<think>\na\n\n\n</think>\nb") == ("a", "\nb")
    assert split_trace("b") == (None, "b")
