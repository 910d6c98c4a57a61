"""A hit may make an event unsafe, and nothing else; whatever it meets, it never makes one safe."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.judgements import judgement, policy
from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.contracts.verdict import Action, CategoryVerdict, PrefilterHit, Severity
from worker.guard.taxonomy import FLOOR
from worker.outcome.actions import Fault
from worker.outcome.decide import Decision, decide
from worker.outcome.passes import PassResult
from worker.outcome.prefilter import settled, settles, with_hits
from worker.policy.model import (
    Actions,
    BuiltinPass,
    CustomCategory,
    CustomPass,
    Policy,
    Prefilter,
    PrefilterList,
)

SCAMS = PrefilterList(
    name="scams", decide="unsafe", category="Fraud/Deception", severity="low", phrases=("x",)
)
GRAVE = PrefilterList(
    name="grave", decide="unsafe", category="Fraud/Deception", severity="critical", phrases=("x",)
)
PICTURES = PrefilterList(
    name="pictures", decide="unsafe", category="Spam", severity="low", images=("0" * 16,)
)
CHILDREN = PrefilterList(name="known", decide="unsafe", category=FLOOR, images=("0" * 16,))
RIVALS = PrefilterList(name="rivals", decide="reason", category="Advertising", phrases=("y",))
NEW = PrefilterList(name="spam", decide="unsafe", category="Spam", phrases=("z",))
GRADED = Actions(default="hold", severity={"low": "flag", "high": "hold", "critical": "block"})


def under(*lists: PrefilterList, judge_too: bool = False, **fields: object) -> Policy:
    prefilter = Prefilter(lists=lists, judge_too=judge_too)
    return policy(prefilter=prefilter, actions=GRADED, **fields)


def hit(each: PrefilterList) -> PrefilterHit:
    found = "image" if each.of_images else "user"
    return PrefilterHit(
        list=each.name,
        decide=each.decide,
        category=each.category,
        found_in=found,  # type: ignore[arg-type]
    )


def undecided(under: Policy, reason: UndecidedReason) -> Decision:
    return decide(under, [], [], [Fault(reason)])


def judged(score: float, *categories: str, floor: float = 0.0) -> Decision:
    answer = judgement(score, *categories, floor=floor)
    return decide(under(SCAMS), [PassResult(source="builtin", judgement=answer)], ())


def test_a_hit_that_is_blocked_settles_an_event_that_nobody_judged() -> None:
    """Unsafe, by the list's category and severity, and without scores that nobody computed."""
    rules = under(GRAVE, RIVALS)
    hits = (hit(GRAVE), hit(RIVALS))
    assert settles(rules, hits)
    decision = settled(rules, hits, unfetched=(ImageRef(uri="s3://b/k"),))
    assert (decision.outcome, decision.action, decision.decided_by) == (
        "unsafe",
        "block",
        "prefilter",
    )
    assert decision.categories == (
        CategoryVerdict(name="Fraud/Deception", source="builtin", severity="critical"),
    )
    assert (decision.user, decision.response) == (None, None)
    assert [(image.uri, image.sha256, image.label) for image in decision.images] == [
        ("s3://b/k", None, None)
    ]
    assert decision.prefilter == hits


@pytest.mark.parametrize("each", [SCAMS, NEW, PICTURES], ids=lambda each: str(each.name))
def test_a_hit_that_is_not_blocked_settles_nothing(each: PrefilterList) -> None:
    """What no list looks for may stand beside it: the floor first of all. Texts and images."""
    rules, hits = under(each), (hit(each),)
    assert not settles(rules, hits)
    broken = with_hits(rules, judged(0.2, floor=0.9), hits)
    assert (broken.outcome, broken.action) == ("unsafe", "block")


def test_a_hit_that_gives_a_reason_settles_nothing_and_is_recorded() -> None:
    """The model's word stands."""
    rules, hits = under(SCAMS, RIVALS), (hit(RIVALS),)
    assert not settles(rules, hits)
    for before in (judged(0.1), judged(0.9, "Violence")):
        after = with_hits(rules, before, hits)
        assert after.prefilter == hits
        assert (after.outcome, after.action, after.categories, after.decided_by) == (
            before.outcome,
            before.action,
            before.categories,
            "judge",
        )


def test_with_judge_too_both_are_heard_and_the_stricter_wins() -> None:
    """What the model calls safe is unsafe by the list; what both call unsafe names both."""
    rules, hits = under(SCAMS, judge_too=True), (hit(SCAMS),)
    assert not settles(rules, hits)
    safe = with_hits(rules, judged(0.1), hits)
    assert (safe.outcome, safe.decided_by, safe.action) == ("unsafe", "prefilter", "flag")
    assert safe.user is not None
    both = with_hits(rules, judged(0.9, "Violence"), hits)
    assert (both.outcome, both.decided_by, both.action) == ("unsafe", "judge", "hold")
    assert [each.name for each in both.categories] == ["Violence", "Fraud/Deception"]
    failed = with_hits(rules, undecided(rules, UndecidedReason.IMAGE_MISSING), hits)
    assert (failed.outcome, failed.undecided_reason, failed.decided_by) == (
        "unsafe",
        "image_missing",
        "prefilter",
    )
    assert failed.action == "hold"  # as undecided alone: the list is milder


def test_of_a_list_and_the_judge_the_graver_severity_is_kept() -> None:
    """The judge's score stays beside it."""
    rules = under(GRAVE, judge_too=True)
    (both,) = with_hits(rules, judged(0.9, "Fraud/Deception"), (hit(GRAVE),)).categories
    assert (both.severity, both.score) == ("critical", 0.9)


def test_a_category_that_means_the_floor_is_blocked_under_any_name() -> None:
    """Whatever severity a policy that was never a file gives it."""
    odd = PrefilterList(
        name="odd", decide="unsafe", category="Child porn", severity="low", phrases=("x",)
    )
    (named,) = with_hits(under(odd), judged(0.1), (hit(odd),)).categories
    assert named.severity == "critical"
    assert with_hits(under(odd), judged(0.1), (hit(odd),)).action == "block"


def test_a_list_of_the_floors_category_blocks_whatever_the_policy_says() -> None:
    """Its severity and action are constants, for lists as for the model."""
    rules = policy(
        prefilter=Prefilter(lists=(CHILDREN,)), actions=Actions(default="allow", severity={})
    )
    decision = settled(rules, (hit(CHILDREN),))
    assert decision.action == "block"
    assert [(each.name, each.severity) for each in decision.categories] == [(FLOOR, "critical")]


def test_without_a_severity_of_its_own_a_list_takes_the_policys() -> None:
    """And the default for a category that only the list knows."""
    plain = PrefilterList(name="p", decide="unsafe", category="Malware", phrases=("x",))
    rules = under(plain, NEW, builtin=BuiltinPass(severity={"Malware": "critical"}))
    assert settles(rules, (hit(plain), hit(NEW)))
    decision = settled(rules, (hit(plain), hit(NEW)))
    assert [(c.name, c.source, c.severity) for c in decision.categories] == [
        ("Malware", "builtin", "critical"),
        ("Spam", "custom", "high"),
    ]
    assert decision.action == "block"


def test_a_policy_of_its_own_taxonomy_grades_what_its_lists_name() -> None:
    """With the built-in pass off, a name means the policy's own category."""
    plain = PrefilterList(name="p", decide="unsafe", category="Malware", phrases=("x",))
    own = CustomPass(taxonomy=(CustomCategory(name="Malware", severity="low"),))
    rules = under(plain, builtin=BuiltinPass(enabled=False), custom=own)
    (named,) = settled(rules, (hit(plain),)).categories
    assert (named.source, named.severity) == ("custom", "low")


lists = st.builds(
    PrefilterList,
    name=st.sampled_from(["a", "b", "c"]),
    decide=st.sampled_from(["unsafe", "reason"]),
    category=st.sampled_from(["Violence", FLOOR, "Spam"]),
    severity=st.none() | st.sampled_from(get_args(Severity)),
    phrases=st.just(("x",)),
)


@given(
    st.lists(lists, min_size=1, max_size=3, unique_by=lambda each: each.name),
    st.booleans(),
    st.sampled_from(["safe", "unsafe", "floor", "undecided"]),
    st.data(),
)
def test_no_hit_ever_makes_an_event_safer(
    listed: list[PrefilterList], judge_too: bool, was: str, data: st.DataObject
) -> None:
    """Over all lists, hits and decisions: less unsafe, or a milder action, never comes out."""
    rules = under(*listed, judge_too=judge_too)
    hits = [hit(each) for each in data.draw(st.lists(st.sampled_from(listed), max_size=4))]
    before = {
        "safe": judged(0.01),
        "unsafe": judged(0.9, "Violence"),
        "floor": judged(0.2, floor=0.3),
        "undecided": undecided(rules, UndecidedReason.NOT_FINITE),
    }[was]
    after = with_hits(rules, before, hits)
    if after.outcome == "safe":
        assert before.outcome == "safe"
        assert not any(each.decide == "unsafe" for each in hits)
    if before.outcome == "unsafe":
        order = get_args(Action)
        assert after.outcome == "unsafe"
        assert order.index(after.action) >= order.index(before.action)
        known = {(each.source, each.name) for each in before.categories}
        assert known <= {(each.source, each.name) for each in after.categories}
    if settles(rules, hits):
        assert (settled(rules, hits).outcome, settled(rules, hits).action) == ("unsafe", "block")
