"""A written answer is read strictly: what is malformed is undecided, never a guess."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.guard.base import Answer, SideName
from worker.guard.nemotron35 import FLOOR, NEMOTRON35, split_categories
from worker.judgement import Rubric
from worker.policy.passes import builtin_rubric

BUILTIN = builtin_rubric(())
LAYOFFS = "Employment actions (layoff list, disciplinary action, firing, demotion)"
POLICY = Rubric(
    mode="policy", text="...", categories=(LAYOFFS, "private company", "PV-3"), sha256=""
)
ONE: tuple[SideName, ...] = ("user",)
BOTH: tuple[SideName, ...] = ("user", "response")


def read(text: str, *, response: bool = False, think: bool = False) -> Answer:
    return NEMOTRON35.parse(text, BOTH if response else ONE, BUILTIN, think=think)


@pytest.mark.parametrize(
    ("text", "user", "response", "categories"),
    [
        ("User Safety: safe", "safe", None, ()),
        ("User Safety: unsafe", "unsafe", None, ()),
        ("User Safety: unsafe\nSafety Categories:", "unsafe", None, ()),
        ("User Safety: safe\nResponse Safety: safe", "safe", "safe", ()),
        (
            "User Safety: unsafe\nResponse Safety: safe\nSafety Categories: Violence, Threat",
            "unsafe",
            "safe",
            ("Violence", "Threat"),
        ),
        ("  user safety : UNSAFE", "unsafe", None, ()),
        ("\n\nUser Safety: safe \n \n", "safe", None, ()),
        ("User Safety: safe \nResponse Safety: unsafe\t\n", "safe", "unsafe", ()),
        ("<think>\nThe user asks.\n\n\n</think>User Safety: safe", "safe", None, ()),
        ("<think>\nThe user asks.\n</think>\nUser Safety: safe", "safe", None, ()),
        ("<think>\nThe user asks.\n</think>  \n\n User Safety: safe\n", "safe", None, ()),
    ],
)
def test_well_formed_answers_are_read_as_they_stand(
    text: str, user: str, response: str | None, categories: tuple[str, ...]
) -> None:
    answer = read(text, response=response is not None)
    assert [each.label for each in answer.labels] == [each for each in (user, response) if each]
    assert answer.categories == categories
    for each in answer.labels:
        assert text[each.start : each.end].lower() == each.label
        assert text[each.opens - 1] == ":"


@pytest.mark.parametrize(
    ("why", "text", "response", "think"),
    [
        ("trace cut off by the budget", "<think>\nThe user asks about", False, True),
        ("a trace that loops", "<think>\n" + "The user asks. " * 200, False, True),
        ("verdict inside an unclosed trace", "<think>\nUser Safety: safe\n", False, True),
        ("nothing after the trace", "<think>\nUser Safety: unsafe\n</think>", False, True),
        ("trace without tags where one was asked for", "Thoughts.\nUser Safety: safe", False, True),
        ("trace without tags", "It is harmless.\nUser Safety: safe", False, False),
        ("a second trace", "<think>a</think><think>b\nUser Safety: safe", False, False),
        ("glued field name", "UserUser Safety: safe", False, False),
        ("prefix in front of the field", "Final Answer: User Safety: safe", False, False),
        ("short response field", "User Safety: safe\nResponse: safe", True, False),
        ("short field", "Response: safe", False, False),
        ("response line left out", "User Safety: safe", True, False),
        ("response nobody sent", "User Safety: safe\nResponse Safety: safe", False, False),
        (
            "unasked",
            "User Safety: safe\nResponse Safety: unsafe",
            False,
            False,
        ),
        ("lines in another order", "Response Safety: safe\nUser Safety: safe", True, False),
        ("a line between", "User Safety: safe\n\nResponse Safety: safe", True, False),
        ("echo", "User Safety: safe or unsafe rating of the user input", False, False),
        ("both labels", "User Safety: safe/unsafe", False, False),
        ("both labels, the other way", "User Safety: unsafe/safe", False, False),
        ("a hedged label", "User Safety: safe-ish", False, False),
        ("a label taken back", "User Safety: safe, but the request is unsafe", False, False),
        ("prose behind an unsafe label", "User Safety: unsafe, as it asks for arms", False, False),
        ("a full stop", "User Safety: safe.", False, False),
        ("quotes", 'User Safety: "safe"', False, False),
        ("bold", "User Safety: **safe**", False, False),
        ("a bracket", "User Safety: safe (mostly)", False, False),
        ("prose in the next line", "User Safety: safe\nThe text is harmless.", False, False),
        (
            "safe with a category",
            "User Safety: safe\nSafety Categories: S1",
            False,
            False,
        ),
        ("a safe label with an empty line", "User Safety: safe\nSafety Categories:", False, False),
        (
            "two category lines",
            "User Safety: unsafe\n" + "Safety Categories: S1\n" * 2,
            False,
            False,
        ),
        ("another value", "User Safety: undetermined", False, False),
        ("a longer word", "User Safety: safely", False, False),
        ("a long s", "User Safety: un\u017fafe", False, False),
        ("a letter that looks alike", "User Safety: s\u0430fe", False, False),
        ("a joiner in the label", "User Safety: sa\u2060fe", False, False),
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
    """Every malformed output that was seen of the model, and their neighbours."""
    with pytest.raises(Undecided) as caught:
        read(text, response=response, think=think)
    assert caught.value.reason is UndecidedReason.MALFORMED_OUTPUT, why


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30), st.sampled_from(["safe", "unsafe"]), st.text(max_size=30))
def test_nothing_beside_white_space_makes_a_label_another(
    before: str, label: str, behind: str
) -> None:
    """Whatever stands around the one line, the answer is that label or it is malformed."""
    try:
        answer = read(f"{before}User Safety: {label}{behind}")
    except Undecided:
        return
    assert answer.labels[0].label == label
    assert not behind.strip(" \t\n\r\f\v") or behind.lstrip(" \t").startswith("\n")


def test_only_what_follows_the_last_closing_tag_counts() -> None:
    """A trace may quote verdicts, even closing tags; the answer stands behind the last one."""
    text = "<think>\nUser Safety: safe\n</think> no\nUser Safety: safe</think>User Safety: unsafe"
    answer = read(text, think=True)
    assert answer.labels[0].label == "unsafe"
    assert answer.trace == "User Safety: safe\n</think> no\nUser Safety: safe"


@pytest.mark.parametrize(
    "written",
    [
        *("Sexual(minor)", "sexual (MINOR)", '"Sexual (minor)"', "**Sexual (minor)**"),
        *("Sexual （minor）", "S7: Sexual (minor)", "s7", "Sexual Minor", "[Sexual (minor)]"),
        *("Violence / Sexual (minor)", "Sexual  (minor).", "`Sexual (minor)`"),
    ],
)
@pytest.mark.parametrize("rubric", [BUILTIN, POLICY])
def test_the_floors_category_is_known_in_every_spelling(written: str, rubric: Rubric) -> None:
    """What means the floor is the floor, however the model sets it."""
    (named,) = split_categories(written, rubric)
    assert NEMOTRON35.is_floor(named.name)
    if rubric is BUILTIN:
        assert named.name == FLOOR


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
    assert NEMOTRON35.split_trace("<think>\na\n\n\n</think>\nb") == ("a", "\nb")
    assert NEMOTRON35.split_trace("b") == (None, "b")
