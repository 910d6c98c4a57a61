"""The decision against an oracle written from docs/policies.md, and monotonicity.

The oracle knows nothing of the code: it restates the page. Monotonicity needs no oracle: more harm,
or one more fault, never gives a milder action.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from tests.support.judgements import policy
from worker.codes import UndecidedReason
from worker.contracts.verdict import Action, PrefilterHit, Severity
from worker.guard.taxonomy import FLOOR
from worker.images import FetchedImage
from worker.judgement import CategoryScore, Judgement, Side, Thought
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
    Think,
    Thresholds,
)

ACTIONS: tuple[Action, ...] = get_args(Action)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
BUILTIN = ("Violence", "Sexual", "Malware", "Profanity")
OWN = ("Gossip", "Spoilers")
LISTED = ("Spam", "Malware", FLOOR, "Child pornography")
FLOOR_NAMES = (FLOOR, "Sexual(minor)", "**S7: sexual minors**")


class Case(NamedTuple):
    """One event, as everything came back for it."""

    policy: Policy
    results: tuple[PassResult, ...]
    images: tuple[FetchedImage, ...]
    faults: tuple[Fault, ...]
    hits: tuple[PrefilterHit, ...]


def decided(case: Case) -> Decision:
    """As the evaluator does it."""
    if settles(case.policy, case.hits):
        return settled(case.policy, case.hits, images=case.images, faults=case.faults)
    decision = decide(case.policy, case.results, case.images, case.faults)
    return with_hits(case.policy, decision, case.hits)


# What the pages say.


class Expected(NamedTuple):
    outcome: str
    action: str
    categories: dict[str, str]
    faulty: bool


def oracle(case: Case) -> Expected:
    rules = case.policy
    unseen = any(fault.content for fault in case.faults)
    faulty = bool(case.faults)
    for number, image in enumerate(case.images):
        looked_at = any(result.image == number for result in case.results)
        if image.error or not looked_at:
            unseen = faulty = True
    severities: list[str] = []
    categories: dict[str, str] = {}
    unsafe = floor = False

    def grade(source: str, name: str) -> str:
        if name in FLOOR_NAMES or name == "Child pornography":
            return "critical"
        if source == "builtin":
            return rules.builtin.severity.get(name, "high")
        if rules.custom and not rules.custom.taxonomy:
            return rules.custom.severity
        own = {each.name: each.severity for each in rules.custom.taxonomy} if rules.custom else {}
        return own.get(name, "high")

    for result in case.results:
        answer = result.judgement
        if answer is None:
            unseen = faulty = True
            continue
        if not answer.floor_asked:
            unseen = faulty = True
        thought = answer.thought
        mass = max(answer.floor_score, thought.floor_score if thought else 0.0)
        names = [each.name for each in answer.categories]
        names += [each.name for each in thought.categories] if thought else []
        broken = mass >= 0.1 or any(name in FLOOR_NAMES for name in names)
        if broken:
            unsafe = floor = True
            severities.append("critical")
            categories[FLOOR] = "critical"
        if result.source == "floor":
            continue
        answers: list[Any] = [answer]
        if thought and thought.user and thought.skipped in (None, "contradictory"):
            answers.append(thought)
        for each in answers:
            sides = [each.user] + ([each.response] if each.response and answer.response else [])
            if not any(side.score >= rules.thresholds.unsafe for side in sides):
                continue
            suppressed = set(rules.builtin.suppress) if result.source == "builtin" else set()
            kept = [each.name for each in each.categories if each.name not in suppressed]
            if each.categories and not kept and each.categories_complete:
                continue
            unsafe = True
            for name in kept:
                shown = FLOOR if name in FLOOR_NAMES else name
                categories[shown] = grade(result.source, name)
                severities.append(categories[shown])
            if not kept or not each.categories_complete:
                text = rules.custom is not None and not rules.custom.taxonomy
                own = rules.custom.severity if rules.custom else "high"
                severities.append(own if result.source == "custom" and text else "high")
    listed = {each.name: each for each in rules.prefilter.lists} if rules.prefilter else {}
    hits = [listed[hit.list] for hit in case.hits if hit.decide == "unsafe"]
    for each in hits:
        assert each.category
        source = "builtin" if each.category in BUILTIN and rules.builtin.enabled else "list"
        given = grade(source, each.category)
        if each.severity and each.category not in (FLOOR, "Child pornography"):
            given = each.severity
        floor = floor or each.category in (FLOOR, "Child pornography")
        severities.append(given)
        unsafe = True
    actions: dict[str, Action] = dict(rules.actions.severity.items())
    wanted: list[str] = [actions.get(each, rules.actions.default) for each in severities]
    wanted += ["block"] if floor else []
    if faulty:
        lenient = "hold" if unseen else "allow"
        wanted.append(lenient if rules.on_undecided == "pass" else rules.on_undecided)
    action = max(wanted, key=ACTIONS.index) if wanted else "allow"
    outcome = "unsafe" if unsafe else "undecided" if faulty else "safe"
    return Expected(outcome, action, categories, faulty)


# Random events.


def score(rng: random.Random) -> float:
    return rng.choice((0.0, 0.05, 0.3, 0.49999, 0.5, 0.50001, 0.7, 0.97, 1.0, rng.random()))


def side(rng: random.Random) -> Side:
    value = score(rng)
    return Side(label="unsafe" if value >= 0.5 else "safe", score=value)


def named(rng: random.Random, source: str, rules: Policy) -> tuple[CategoryScore, ...]:
    known = BUILTIN if source != "custom" else OWN
    names = rng.sample(known, rng.choice((0, 0, 1, 1, 2)))
    if rng.random() < 0.03:
        names.append(rng.choice(FLOOR_NAMES))
    return tuple(CategoryScore(name=name, score=0.9) for name in names)


def judged(rng: random.Random, source: str, image: int | None, rules: Policy) -> PassResult:
    if rng.random() < 0.1:
        fault = rng.choice((UndecidedReason.MALFORMED_OUTPUT, UndecidedReason.JUDGE_TIMEOUT))
        return PassResult(source=source, image=image, fault=fault)  # type: ignore[arg-type]
    response = side(rng) if rng.random() < 0.3 else None
    mass = rng.choice((0.0, 0.0, 0.0, 0.0, 0.0999, 0.1, 0.5)) if rng.random() < 0.2 else 0.0
    thought = None
    if rules.think.when != "never" and source != "floor" and rng.random() < 0.6:
        skipped = rng.choice((None, None, None, "contradictory", "failed", "unclosed"))
        user = side(rng) if skipped != "unclosed" else None
        thought = Thought(
            trace="So.",
            user=user,
            response=side(rng) if response and user and rng.random() < 0.9 else None,
            categories=named(rng, source, rules) if user else (),
            categories_complete=rng.random() < 0.9,
            floor_score=rng.choice((0.0, 0.0, 0.0, 0.3)),
            skipped=skipped,
        )
    answer = Judgement(
        user=side(rng),
        response=response,
        categories=named(rng, source, rules),
        categories_complete=rng.random() < 0.9,
        floor_score=mass,
        floor_asked=rng.random() < 0.95,
        thought=thought,
    )
    return PassResult(source=source, image=image, judgement=answer)  # type: ignore[arg-type]


def rules(rng: random.Random) -> Policy:
    graded: dict[str, Severity] = {
        name: rng.choice(SEVERITIES) for name in BUILTIN if rng.random() < 0.5
    }
    enabled = rng.random() < 0.8
    custom = None
    if not enabled or rng.random() < 0.5:
        own = tuple(CustomCategory(name=name, severity=rng.choice(SEVERITIES)) for name in OWN)
        custom = rng.choice(
            (
                CustomPass(disallowed=OWN, severity=rng.choice(SEVERITIES)),
                CustomPass(taxonomy=own),
            )
        )
    lists = tuple(
        PrefilterList(
            name=f"list-{number}",
            decide=rng.choice(("unsafe", "reason")),
            category=rng.choice(LISTED),
            severity=rng.choice((None, *SEVERITIES)),
            phrases=("x",),
        )
        for number in range(2)
    )
    return policy(
        builtin=BuiltinPass(
            enabled=enabled,
            suppress=tuple(rng.sample(BUILTIN, rng.choice((0, 0, 1, 2)))) if enabled else (),
            severity=graded if enabled else {},
        ),
        custom=custom,
        thresholds=Thresholds(unsafe=rng.choice((0.3, 0.5, 0.7))),
        think=Think(when=rng.choice(("never", "always", "unsafe", "uncertain"))),
        actions=Actions(
            default=rng.choice(ACTIONS),
            severity={
                level: rng.choice(ACTIONS if level != "critical" else ("hold", "block"))
                for level in SEVERITIES
                if rng.random() < 0.6
            },
        ),
        on_undecided=rng.choice(("hold", "block", "pass")),
        prefilter=Prefilter(lists=lists, judge_too=rng.random() < 0.5),
    )


def event(rng: random.Random) -> Case:
    under = rules(rng)
    images = tuple(
        FetchedImage(
            uri="s3://b/k",
            error=rng.choice((None, None, None, UndecidedReason.IMAGE_CORRUPT)),
        )
        for _ in range(rng.choice((0, 0, 0, 1, 2)))
    )
    sources = ["builtin"] if under.builtin.enabled else []
    sources += ["custom"] if under.custom else []
    sources += [] if under.builtin.enabled else ["floor"]
    seen: list[int | None] = [
        number for number, image in enumerate(images) if image.error is None
    ] or [None]
    results = [judged(rng, each, number, under) for each in sources for number in seen]
    faults = [fault(rng)] if rng.random() < 0.1 else []
    hits = [hit(rng, under)] if rng.random() < 0.2 else []
    return Case(under, tuple(results), images, tuple(faults), tuple(hits))


def fault(rng: random.Random) -> Fault:
    return Fault(UndecidedReason.INVALID_FIELD, "time", rng.random() < 0.5)


def hit(rng: random.Random, under: Policy) -> PrefilterHit:
    assert under.prefilter is not None
    each = rng.choice(under.prefilter.lists)
    return PrefilterHit(list=each.name, decide=each.decide, category=each.category, found_in="user")


# More harm, or one more fault.


def answer_of(case: Case, rng: random.Random) -> tuple[int, Judgement] | None:
    places = [
        (number, result.judgement)
        for number, result in enumerate(case.results)
        if result.judgement is not None
    ]
    return rng.choice(places) if places else None


def answered(case: Case, number: int, answer: Judgement) -> Case:
    results = list(case.results)
    results[number] = msgspec.structs.replace(results[number], judgement=answer)
    return case._replace(results=tuple(results))


def higher_score(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    if found is None:
        return case
    number, answer = found
    raised = min(1.0, answer.user.score + rng.choice((0.01, 0.3, 1.0)))
    user = Side(label="unsafe" if raised >= 0.5 else "safe", score=raised)
    return answered(case, number, msgspec.structs.replace(answer, user=user))


def higher_response(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    if found is None or found[1].response is None:
        return case
    number, answer = found
    worse = Side(label="unsafe", score=1.0)
    return answered(case, number, msgspec.structs.replace(answer, response=worse))


def floor_share(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    if found is None:
        return case
    number, answer = found
    share = max(answer.floor_score, rng.choice((0.05, 0.1, 0.9)))
    return answered(case, number, msgspec.structs.replace(answer, floor_score=share))


def floor_in_trace(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    known = found[1].thought if found is not None else None
    if found is None or known is None:
        return case
    number, answer = found
    thought = msgspec.structs.replace(known, floor_score=0.5)
    return answered(case, number, msgspec.structs.replace(answer, thought=thought))


def another_category(case: Case, rng: random.Random) -> Case:
    """Beside one that counts: a name is harm, while the first name of all is knowledge."""
    found = answer_of(case, rng)
    if found is None or case.results[found[0]].source != "builtin":
        return case
    number, answer = found
    counted = [each for each in answer.categories if each.name not in case.policy.builtin.suppress]
    if not counted:
        return case
    more = CategoryScore(name=rng.choice((*BUILTIN, *FLOOR_NAMES)))
    if more.name in [each.name for each in answer.categories]:
        return case
    named = (*answer.categories, more)
    return answered(case, number, msgspec.structs.replace(answer, categories=named))


def line_cut_off(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    if found is None:
        return case
    cut = msgspec.structs.replace(found[1], categories_complete=False)
    return answered(case, found[0], cut)


def floor_not_asked(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    if found is None:
        return case
    return answered(case, found[0], msgspec.structs.replace(found[1], floor_asked=False))


def worse_trace(case: Case, rng: random.Random) -> Case:
    found = answer_of(case, rng)
    if found is None or case.results[found[0]].source == "floor":
        return case
    number, answer = found
    if answer.thought is not None or case.policy.think.when == "never":
        return case
    trace = Thought(
        trace="So.",
        user=Side(label="unsafe", score=1.0),
        response=Side(label="safe", score=0.0) if answer.response else None,
        categories=named(rng, case.results[number].source, case.policy),
    )
    return answered(case, number, msgspec.structs.replace(answer, thought=trace))


def any_trace(case: Case, rng: random.Random) -> Case:
    """Whatever it says: a trace never lowers."""
    found = answer_of(case, rng)
    if found is None or found[1].thought is not None or case.results[found[0]].source == "floor":
        return case
    number, answer = found
    source = case.results[number].source
    trace = Thought(trace="So.", user=side(rng), categories=named(rng, source, case.policy))
    return answered(case, number, msgspec.structs.replace(answer, thought=trace))


def another_pass(case: Case, rng: random.Random) -> Case:
    """One more window or frame, whatever is found in it."""
    source = rng.choice(("builtin", "floor", *(("custom",) if case.policy.custom else ())))
    return case._replace(results=(*case.results, judged(rng, source, None, case.policy)))


def failed_pass(case: Case, rng: random.Random) -> Case:
    fault = PassResult(source="builtin", fault=rng.choice(list(UndecidedReason)))
    return case._replace(results=(*case.results, fault))


def failed_image(case: Case, rng: random.Random) -> Case:
    broken = FetchedImage(uri="s3://b/k", error=UndecidedReason.IMAGE_CORRUPT)
    return case._replace(images=(*case.images, broken))


def faulty_field(case: Case, rng: random.Random) -> Case:
    return case._replace(faults=(*case.faults, fault(rng)))


def another_hit(case: Case, rng: random.Random) -> Case:
    return case._replace(hits=(*case.hits, hit(rng, case.policy)))


WORSE: tuple[Callable[[Case, random.Random], Case], ...] = (
    higher_score,
    higher_response,
    floor_share,
    floor_in_trace,
    another_category,
    line_cut_off,
    floor_not_asked,
    worse_trace,
    any_trace,
    another_pass,
    failed_pass,
    failed_image,
    faulty_field,
    another_hit,
)


def run(seed: int, events: int) -> dict[str, int]:
    """Hold so many random events against the oracle, and each against a worse one of itself."""
    rng = random.Random(seed)
    seen: dict[str, int] = {}
    for number in range(events):
        case = event(rng)
        decision, expected = decided(case), oracle(case)
        seen[decision.outcome] = seen.get(decision.outcome, 0) + 1
        where = f"event {number} of seed {seed}: {case}"
        if settles(case.policy, case.hits):
            # Nobody asked: what the judge would have said is not in the verdict.
            assert (decision.outcome, decision.action) == ("unsafe", "block"), where
        else:
            got = (decision.outcome, decision.action, decision.undecided_reason is not None)
            assert got == (expected.outcome, expected.action, expected.faulty), where
            found = {each.name: each.severity for each in decision.categories}
            assert expected.categories.items() <= found.items() or case.hits, where
        worsen = WORSE[number % len(WORSE)]
        worse = worsen(case, rng)
        before, after = ACTIONS.index(decision.action), ACTIONS.index(decided(worse).action)
        assert before <= after, f"{worsen.__name__}: {where}\nbecame milder by {worse}"
        if decision.outcome == "unsafe":
            assert decided(worse).outcome == "unsafe", f"{worsen.__name__}: {where}"
    return seen


def test_random_events_are_decided_as_the_pages_say_and_worse_ones_never_milder() -> None:
    """A share of the run below, of other events."""
    seen = run(1, 4_000)
    assert min(seen[each] for each in ("safe", "unsafe", "undecided")) > 100


@pytest.mark.slow
def test_a_hundred_thousand_random_events_hold_too() -> None:
    """Rare meetings of a trace, a list, a cut line and a fault need many tries."""
    assert sum(run(2, 100_000).values()) == 100_000


@pytest.mark.parametrize("on_undecided", ["hold", "block", "pass"])
@pytest.mark.parametrize("reason", list(UndecidedReason))
def test_what_nobody_judged_is_never_let_through(
    on_undecided: str, reason: UndecidedReason
) -> None:
    """By every reason there is, and beside everything that the policy allows."""
    lax = policy(on_undecided=on_undecided, actions=Actions(default="allow"))
    failed = PassResult(source="builtin", fault=reason)
    fine = Judgement(user=Side(label="unsafe", score=0.9), response=None)
    for results in ([failed], [failed, PassResult(source="builtin", judgement=fine)]):
        decision = decide(lax, results, [])
        assert decision.action == {"pass": "hold"}.get(on_undecided, on_undecided)
        assert decision.undecided_reason == reason
