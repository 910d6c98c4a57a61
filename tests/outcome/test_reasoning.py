"""What a THINK trace may change, and what it may not."""

from __future__ import annotations

import pytest

from tests.support.judgements import judgement, policy, side, thought
from worker.contracts.verdict import Reasoning
from worker.guard.taxonomy import FLOOR
from worker.judgement import Thought
from worker.outcome.decide import Decision, decide
from worker.outcome.passes import PassResult
from worker.outcome.reasoning import shorten
from worker.policy.model import Actions, BuiltinPass, Think, Thresholds


def decided(
    when: str, score: float, trace: Thought, *categories: str, response: float | None = None
) -> Decision:
    result = PassResult(
        source="builtin",
        judgement=judgement(score, *categories, response=response, thought=trace),
    )
    return decide(policy(think=Think(when=when)), [result], [])  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["always", "uncertain", "unsafe"])
def test_of_score_and_trace_the_worse_reading_counts(when: str) -> None:
    """A trace may find what the score missed, and takes back nothing that the score found."""
    assert decided(when, 0.45, thought(1.0, "Malware")).outcome == "unsafe"
    lowered = decided(when, 0.55, thought(0.0), "Malware")
    assert (lowered.outcome, [each.name for each in lowered.categories]) == ("unsafe", ["Malware"])
    assert lowered.reasoning is not None
    assert lowered.reasoning.skipped == "contradictory"


@pytest.mark.parametrize("when", ["always", "uncertain", "unsafe"])
@pytest.mark.parametrize("skipped", [None, "contradictory", "failed", "unclosed"])
def test_the_floor_score_of_a_trace_always_counts(when: str, skipped: str | None) -> None:
    """Whatever else became of the trace, what it came near to is not forgotten."""
    decision = decided(when, 0.1, thought(0.2, floor=0.87, skipped=skipped))
    assert (decision.outcome, decision.action, decision.decided_by) == ("unsafe", "block", "floor")


@pytest.mark.parametrize("when", ["always", "uncertain", "unsafe"])
def test_a_policy_that_thinks_says_so_where_no_trace_was_called_for(when: str) -> None:
    """Null means that the policy never thinks; so says the contract."""
    under = policy(think=Think(when=when))  # type: ignore[arg-type]
    judged = PassResult(source="builtin", judgement=judgement(0.01))
    for decision in (decide(under, [judged], []), decide(under, [], [], [])):
        assert decision.reasoning == Reasoning(mode=when)  # type: ignore[arg-type]
    assert decide(policy(), [judged], []).reasoning is None


def test_under_unsafe_a_safe_trace_is_recorded_and_lowers_nothing() -> None:
    decision = decided("unsafe", 0.9, thought(0.0), "Malware")
    assert decision.outcome == "unsafe"
    assert decision.reasoning is not None
    assert decision.reasoning.skipped == "contradictory"


@pytest.mark.parametrize("when", ["always", "unsafe"])
def test_a_trace_adds_categories_and_takes_none_away(when: str) -> None:
    """The action follows from both: a milder name behind a grave one changes nothing."""
    graded = BuiltinPass(severity={"Malware": "critical", "Profanity": "low"})
    under = policy(
        think=Think(when=when),  # type: ignore[arg-type]
        builtin=graded,
        actions=Actions(default="hold", severity={"low": "allow", "critical": "block"}),
    )
    judged = judgement(0.9, "Malware", thought=thought(1.0, "Profanity"))
    decision = decide(under, [PassResult(source="builtin", judgement=judged)], [])
    assert [category.name for category in decision.categories] == ["Malware", "Profanity"]
    assert decision.action == "block"


@pytest.mark.parametrize("when", ["always", "unsafe", "uncertain"])
@pytest.mark.parametrize("skipped", ["empty", "unclosed", "contradictory", "failed", "deadline"])
def test_a_trace_that_does_not_count_keeps_the_outcome_and_is_recorded(
    when: str, skipped: str
) -> None:
    decision = decided(when, 0.9, thought(0.0, skipped=skipped))
    assert decision.outcome == "unsafe"
    assert decision.reasoning is not None
    assert decision.reasoning.skipped == skipped


@pytest.mark.parametrize("when", ["always", "unsafe", "uncertain"])
def test_thinking_alone_never_lowers_the_floor(when: str) -> None:
    assert decided(when, 0.9, thought(0.0), FLOOR).outcome == "unsafe"


@pytest.mark.parametrize("named", [("Violence",), ("Violence", "Sexual"), ()])
def test_under_unsafe_a_trace_that_names_only_suppressed_categories_clears_nothing(
    named: tuple[str, ...],
) -> None:
    """The score was unsafe for another reason, or for one it did not name: talking the model into
    an allowed name behind it is no way out."""
    lax = policy(think=Think(when="unsafe"), builtin=BuiltinPass(suppress=("Sexual",)))

    def behind(*score_names: str) -> Decision:
        judged = judgement(0.9, *score_names, thought=thought(0.9, "Sexual"))
        return decide(lax, [PassResult(source="builtin", judgement=judged)], [])

    assert behind(*named).outcome == "unsafe"
    assert [each.name for each in behind(*named).categories] == [*named[:1]]
    # Where the score named only allowed ones too, both are cleared.
    assert behind("Sexual").outcome == "safe"


def test_a_floor_that_only_the_trace_came_near_is_not_cleared_with_a_suppressed_name() -> None:
    """The trace names a suppressed category, with the floor at 0.3 behind it."""
    lax = policy(think=Think(when="always"), builtin=BuiltinPass(suppress=("Sexual",)))
    for floor, outcome in ((0.3, "unsafe"), (0.05, "safe")):
        judged = judgement(0.1, thought=thought(0.9, "Sexual", floor=floor))
        result = PassResult(source="builtin", judgement=judged)
        assert decide(lax, [result], []).outcome == outcome


def test_the_threshold_decides_about_the_score_behind_a_trace_too() -> None:
    for threshold, outcome in ((0.3, "unsafe"), (0.5, "safe")):
        strict = policy(think=Think(when="always"), thresholds=Thresholds(unsafe=threshold))
        result = PassResult(source="builtin", judgement=judgement(0.1, thought=thought(0.4)))
        assert decide(strict, [result], []).outcome == outcome


def test_a_trace_that_forgets_the_response_does_not_count() -> None:
    decision = decided("always", 0.1, thought(0.0), response=0.9)
    assert decision.outcome == "unsafe"


def test_a_trace_that_judges_both_sides_counts_for_each() -> None:
    both = Thought(trace="Odd.", user=side(0.0), response=side(0.9))
    decision = decided("always", 0.1, both, response=0.2)
    assert decision.response is not None
    assert (decision.outcome, decision.response.score) == ("unsafe", 0.9)
    assert decision.reasoning is not None
    assert decision.reasoning.skipped is None


def test_the_verdict_shows_three_sentences_and_the_decision_keeps_the_whole_trace() -> None:
    decision = decided("always", 0.9, thought(1.0))
    assert decision.reasoning is not None
    assert decision.reasoning.trace == "One. Two. Three."
    assert decision.traces == ("One. Two. Three. Four.",)


def test_an_endless_sentence_is_cut_so_that_it_cannot_outgrow_its_record() -> None:
    assert len(shorten("word " * 10_000)) == 1_000


@pytest.mark.parametrize(
    "sentences",
    [
        ["One.", "Two!", "Three?", "Four."],
        ['He said "no."', "Then (it ended.)", "Three.", "Four."],
        ["Das kostet 3.5 Euro.", "Zwei.", "Drei.", "Vier."],
        ["一。", "二。", "三。", "四。"],
        ["一．", "二！", "三？", "四｡"],
        ["هذا آمن.", "هل هذا ضار؟", "لا.", "نعم."],
        ["یہ محفوظ ہے۔", "یہ خطرناک ہے۔", "تین۔", "چار۔"],
        ["ข้อความนี้ปลอดภัย", "ไม่มีอันตราย", "ผู้ใช้ถามทาง", "จบ"],
        ["यह सुरक्षित है।", "दो॥", "तीन।", "चार।"],
        ["Είναι ασφαλές.", "Είναι;", "Ναι.", "Όχι."],
        ["Είναι ασφαλές.", "Είναι\u037e", "Ναι.", "Όχι."],
        ["안전합니다.", "위험합니까?", "네.", "아니요."],
    ],
)
def test_a_verdict_has_three_sentences_in_every_script(sentences: list[str]) -> None:
    """Whatever ends a sentence there, and also where no blank stands behind it."""
    spaced = shorten(" ".join(sentences))
    assert spaced == " ".join(sentences[:3])
    if sentences[0][-1] in "。．।۔":
        assert shorten("".join(sentences)) == " ".join(sentences[:3])


@pytest.mark.parametrize("mark", ["- {}", "* {}", "• {}", "{n}. {}", "({n}) {}"])
def test_an_entry_of_a_list_is_a_sentence(mark: str) -> None:
    """A list without a single full stop must not carry a whole trace into the verdict."""
    words = ["first point", "second point", "third point", "fourth point"]
    trace = "\n".join(mark.format(word, n=n) for n, word in enumerate(words, 1))
    assert "fourth" not in shorten(trace)
    assert "third" in shorten(trace)
