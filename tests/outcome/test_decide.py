"""Promises 2 and 4: undecided is never safe, and nothing lowers the floor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.judgements import judgement, policy
from worker.codes import UndecidedReason
from worker.contracts.verdict import ContextUse
from worker.guard.taxonomy import FLOOR
from worker.images import FetchedImage
from worker.outcome.actions import Fault
from worker.outcome.decide import Decision, decide
from worker.outcome.passes import PassResult
from worker.policy.model import (
    Actions,
    BuiltinPass,
    CustomCategory,
    CustomPass,
    Policy,
    Thresholds,
)


def judged(
    *args: object, image: int | None = None, source: str = "builtin", **kw: object
) -> PassResult:
    return PassResult(source=source, image=image, judgement=judgement(*args, **kw))  # type: ignore[arg-type]


def failed(reason: UndecidedReason = UndecidedReason.MALFORMED_OUTPUT) -> PassResult:
    return PassResult(source="builtin", fault=reason)


def unjudged(under: Policy, reason: UndecidedReason) -> Decision:
    return decide(under, [], [], [Fault(reason)])


def image(error: UndecidedReason | None = None) -> FetchedImage:
    return FetchedImage(uri="s3://bucket/key", sha256="ab", error=error)


def test_an_event_whose_every_pass_is_safe_is_safe_and_allowed() -> None:
    decision = decide(policy(), [judged(0.1), judged(0.2, source="custom")], [])
    assert (decision.outcome, decision.action) == ("safe", "allow")
    assert decision.user is not None
    assert decision.user.score == 0.2


def test_one_unsafe_pass_among_safe_ones_makes_the_event_unsafe() -> None:
    decision = decide(policy(), [judged(0.1), judged(0.9, "Malware", source="custom")], [])
    assert (decision.outcome, decision.action) == ("unsafe", "hold")
    assert [(c.name, c.source) for c in decision.categories] == [("Malware", "custom")]


def test_a_failed_pass_beside_safe_ones_makes_the_event_undecided() -> None:
    decision = decide(policy(), [judged(0.1), failed()], [])
    assert decision.outcome == "undecided"
    assert decision.undecided_reason == UndecidedReason.MALFORMED_OUTPUT
    assert decision.user is None


def test_an_unsafe_pass_outweighs_a_failed_one() -> None:
    assert decide(policy(), [failed(), judged(0.9)], []).outcome == "unsafe"


def test_no_pass_at_all_is_undecided() -> None:
    assert decide(policy(), [], []).outcome == "undecided"


def test_a_failed_image_makes_a_safe_event_undecided_and_is_named() -> None:
    images = [image(), image(UndecidedReason.IMAGE_MISSING)]
    decision = decide(policy(), [judged(0.1, image=0)], images)
    assert decision.undecided_reason == UndecidedReason.IMAGE_MISSING
    assert decision.undecided_detail == "images[1]"
    assert [verdict.error for verdict in decision.images] == [None, "image_missing"]


def test_an_unsafe_image_is_named_and_outweighs_a_failed_one() -> None:
    images = [image(), image(), image(UndecidedReason.IMAGE_CORRUPT)]
    decision = decide(policy(), [judged(0.1, image=0), judged(0.8, image=1)], images)
    assert decision.outcome == "unsafe"
    assert [verdict.label for verdict in decision.images] == ["safe", "unsafe", None]


@pytest.mark.parametrize(
    ("setting", "action"), [("hold", "hold"), ("block", "block"), ("pass", "hold")]
)
def test_the_policy_says_what_happens_to_the_undecided(setting: str, action: str) -> None:
    """Whether it was not judged at all, or a pass or an image failed. What nobody looked at is
    never let through: the floor was not asked about it."""
    under = policy(on_undecided=setting)
    missing = [image(UndecidedReason.IMAGE_MISSING)]
    for decision in (
        unjudged(under, UndecidedReason.POISON),
        decide(under, [judged(0.1), failed()], []),
        decide(under, [judged(0.1)], missing),
        decide(under, [], []),
    ):
        assert (decision.outcome, decision.action) == ("undecided", action)


def test_held_content_waits_for_review_and_blocked_content_is_kept_without() -> None:
    held = decide(policy(), [judged(0.9)], [])
    blocked = decide(policy(actions=Actions(default="block")), [judged(0.9)], [])
    flagged = decide(policy(actions=Actions(default="flag")), [judged(0.9)], [])
    assert [(d.quarantined, d.needs_review) for d in (held, blocked, flagged)] == [
        (True, True),
        (True, False),
        (False, False),
    ]


def test_the_threshold_decides_and_not_the_greedy_label() -> None:
    low = policy(thresholds=Thresholds(unsafe=0.3))
    high = policy(thresholds=Thresholds(unsafe=0.7))
    assert decide(low, [judged(0.4)], []).outcome == "unsafe"
    assert decide(high, [judged(0.6)], []).outcome == "safe"


def test_only_the_response_may_be_unsafe() -> None:
    decision = decide(policy(), [judged(0.1, "Violence", response=0.9)], [])
    assert decision.outcome == "unsafe"
    assert decision.user is not None
    assert decision.response is not None
    assert (decision.user.label, decision.response.label) == ("safe", "unsafe")


SUPPRESSING = policy(builtin=BuiltinPass(suppress=("Violence",)))


def test_an_event_with_only_suppressed_categories_is_cleared_and_says_which() -> None:
    decision = decide(SUPPRESSING, [judged(0.9, "Violence")], [])
    assert (decision.outcome, decision.suppressed) == ("safe", ("Violence",))


def test_a_category_beside_the_suppressed_one_keeps_the_event_unsafe() -> None:
    decision = decide(SUPPRESSING, [judged(0.9, "Violence", "Malware")], [])
    assert decision.outcome == "unsafe"
    assert [c.name for c in decision.categories] == ["Malware"]


def test_unsafe_without_any_category_is_never_cleared_by_suppression() -> None:
    assert decide(SUPPRESSING, [judged(0.9)], []).outcome == "unsafe"


def test_suppression_of_a_builtin_category_does_not_reach_the_custom_pass() -> None:
    decision = decide(SUPPRESSING, [judged(0.9, "Violence", source="custom")], [])
    assert decision.outcome == "unsafe"


def test_the_floor_is_not_cleared_with_the_suppressed_category_it_hides_behind() -> None:
    decision = decide(SUPPRESSING, [judged(0.9, "Violence", floor=0.9)], [])
    assert (decision.outcome, decision.action) == ("unsafe", "block")
    assert FLOOR in [category.name for category in decision.categories]


@given(
    score=st.floats(0, 1),
    threshold=st.floats(0.01, 1),
    suppress=st.sampled_from([(), ("Violence",), (FLOOR,)]),
    action=st.sampled_from(["allow", "flag", "hold"]),
)
def test_nothing_in_a_policy_lowers_the_floor(
    score: float, threshold: float, suppress: tuple[str, ...], action: str
) -> None:
    lax = policy(
        thresholds=Thresholds(unsafe=threshold),
        builtin=BuiltinPass(suppress=suppress, severity={FLOOR: "low"}),
        actions=Actions(default=action, severity={"critical": action, "low": action}),  # type: ignore[arg-type,dict-item]
    )
    decision = decide(lax, [judged(score, FLOOR)], [])
    assert (decision.outcome, decision.action) == ("unsafe", "block")
    assert [c.severity for c in decision.categories] == ["critical"]


def test_a_category_line_that_was_cut_off_is_never_cleared() -> None:
    """Every name that was read is suppressed, but nobody knows which would have followed."""
    lax = policy(builtin=BuiltinPass(suppress=("Violence", "Threat")))
    whole = judged(0.9, "Violence", "Threat")
    cut = judged(0.9, "Violence", "Threat", complete=False)
    assert decide(lax, [whole], []).outcome == "safe"
    assert decide(lax, [cut], []).outcome == "unsafe"


def test_the_strictest_action_of_all_categories_wins() -> None:
    mixed = policy(
        builtin=BuiltinPass(severity={"Profanity": "low", "Malware": "critical"}),
        actions=Actions(default="hold", severity={"low": "flag", "critical": "block"}),
    )
    assert decide(mixed, [judged(0.9, "Profanity")], []).action == "flag"
    assert decide(mixed, [judged(0.9, "Profanity", "Malware")], []).action == "block"


def test_a_category_without_a_severity_counts_as_high() -> None:
    strict = policy(
        custom=CustomPass(taxonomy=(CustomCategory(name="Known", severity="low"),)),
        actions=Actions(default="flag", severity={"high": "block"}),
    )
    decision = decide(strict, [judged(0.9, "Invented", source="custom")], [])
    assert (decision.categories[0].severity, decision.action) == ("high", "block")


SCORES = st.floats(0, 1)


@given(
    passes=st.lists(st.one_of(SCORES, st.none()), min_size=1, max_size=4),
    broken=st.booleans(),
)
def test_safe_is_only_ever_said_when_everything_was_seen_and_judged_safe(
    passes: list[float | None], broken: bool
) -> None:
    results = [failed() if score is None else judged(score) for score in passes]
    images = [image(UndecidedReason.IMAGE_TIMEOUT)] if broken else []
    decision = decide(policy(), results, images)
    scores = [score for score in passes if score is not None]
    if decision.outcome == "safe":
        assert not broken
        assert len(scores) == len(passes)
        assert max(scores) < 0.5
    elif decision.outcome == "unsafe":
        assert max(scores) >= 0.5


def test_only_an_event_that_was_judged_and_never_for_itself_is_cached() -> None:
    """A failed pass or image beside cached answers is looked at again, and never by the cache."""
    known = judged(0.1, cached=True)
    alone = decide(policy(), [known], [])
    assert (alone.cached, alone.decided_by) == (True, "cache")
    assert not decide(policy(), [known, judged(0.1)], []).cached
    assert not decide(policy(), [judged(0.9, cached=True), failed()], []).cached
    lost = decide(
        policy(), [judged(0.1, cached=True, image=0)], [image(UndecidedReason.IMAGE_MISSING)]
    )
    assert (lost.outcome, lost.cached, lost.decided_by) == ("undecided", False, "judge")


def test_the_context_is_what_every_pass_saw() -> None:
    passes = [
        judged(0.1, context=ContextUse(included=3, omitted=1)),
        judged(0.1, context=ContextUse(included=2, omitted=2), source="custom"),
    ]
    assert decide(policy(), passes, []).context == ContextUse(included=2, omitted=2)


def test_control_strings_of_every_pass_are_reported_once() -> None:
    passes = [judged(0.1, neutralised=("b", "a")), judged(0.1, neutralised=("a",), source="custom")]
    assert decide(policy(), passes, []).neutralised == ("a", "b")


def test_what_the_floor_alone_made_unsafe_says_so() -> None:
    raised = decide(policy(), [judged(0.1, floor=0.9)], [])
    both = decide(policy(), [judged(0.9, floor=0.9)], [])
    assert (raised.outcome, raised.decided_by) == ("unsafe", "floor")
    assert (both.outcome, both.decided_by) == ("unsafe", "judge")
