"""What the console remembers: the last minute, the last verdicts, and no more."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from tests.support.canary import CANARY
from tests.support.verdicts import make_verdict
from worker.clock import ManualClock
from worker.contracts.verdict import CategoryVerdict, Reasoning, SideVerdict, Verdict
from worker.web.recent import FINDABLE, KEPT, WINDOW_S, Recent


def test_rates_are_of_the_last_minute() -> None:
    """Events older than a minute no longer count as throughput, but as totals."""
    clock = ManualClock()
    recent = Recent(clock)
    for _ in range(120):
        for _ in range(5):
            recent.add(make_verdict())
        clock.advance(1)
    activity = recent.activity()
    assert activity.rate == 5.0
    assert activity.series == (5,) * WINDOW_S
    assert activity.events == 600
    clock.advance(WINDOW_S + 1)
    assert recent.activity().rate == 0
    assert recent.activity().events == 600


def test_a_young_worker_is_not_measured_over_time_it_did_not_have() -> None:
    """Thirty events in three seconds are ten a second."""
    clock = ManualClock()
    recent = Recent(clock)
    for _ in range(3):
        for _ in range(10):
            recent.add(make_verdict())
        clock.advance(1)
    assert recent.activity().rate == 10.0


def test_outcomes_are_counted_for_each_policy() -> None:
    clock = ManualClock()
    recent = Recent(clock)
    for policy, outcome in (("a", "safe"), ("a", "unsafe"), ("b", "undecided"), ("a", "safe")):
        verdict = msgspec.structs.replace(make_verdict(policy=policy), outcome=outcome)
        recent.add(verdict)
    clock.advance(1)
    first, second = recent.activity().policies
    assert (first.policy, first.safe, first.unsafe, first.undecided) == ("a", 2, 1, 0)
    assert (second.policy, second.undecided, second.last_minute) == ("b", 1, 1)
    assert first.total == 3


def test_reasoning_is_counted_written_and_shed() -> None:
    """Shedding reasoning is what overload does first, so it must show."""
    clock = ManualClock()
    recent = Recent(clock)
    for reasoning in (None, Reasoning(mode="always", trace="t"), None, None):
        recent.add(msgspec.structs.replace(make_verdict(), reasoning=reasoning))
    shed = Reasoning(mode="always", skipped="overload")
    recent.add(msgspec.structs.replace(make_verdict(), reasoning=shed))
    clock.advance(1)
    activity = recent.activity()
    assert activity.think_share == pytest.approx(0.2)
    assert activity.think_shed == 1


def test_batch_fill_is_of_the_last_minute_not_of_all_time() -> None:
    clock = ManualClock()
    recent = Recent(clock, max_batch=32)
    assert recent.activity().batch_fill is None
    for second in range(200):
        recent.batches(count=second, contexts=second * (8 if second < 100 else 16) - 0.0)
        clock.advance(1)
    assert recent.activity().batch_contexts == pytest.approx(16)
    assert recent.activity().batch_fill == pytest.approx(0.5)


def test_whoever_looks_first_sees_the_batches_so_far() -> None:
    """The console is opened when something is wrong: it must not begin to count then."""
    clock = ManualClock()
    recent = Recent(clock, max_batch=32)
    clock.advance(30)
    recent.batches(count=10, contexts=80.0)
    assert recent.activity().batch_fill == pytest.approx(0.25)


def test_content_is_not_even_kept_unless_switched_on() -> None:
    """What is not in memory cannot be shown by a later mistake."""
    clock = ManualClock()
    for show in (False, True):
        recent = Recent(clock, show_content=show)
        recent.add(make_verdict(), held=True, text=CANARY, traces=(CANARY,))
        row = recent.activity().quarantine[0]
        assert (CANARY in row.text, CANARY in row.trace) == (show, show)


def test_memory_is_bounded() -> None:
    """A day of traffic leaves as much behind as a minute of it."""
    clock = ManualClock()
    recent = Recent(clock, show_content=True)

    def run(events: int) -> None:
        for number in range(events):
            recent.add(make_verdict(event_id=f"e{number}"), held=True, text="x" * 1000)
            clock.advance(0.25)

    run(2_000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    run(5_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # What is kept from before the start of tracing was replaced: at most the rings themselves.
    assert after - before < 4 * 1024 * 1024
    assert len(recent.activity().verdicts) == KEPT
    assert [row.event_id for row in recent.activity().verdicts[:2]] == ["e4999", "e4998"]


def verdict_of(user: float, response: float) -> Verdict:
    return msgspec.structs.replace(
        make_verdict(),
        outcome="unsafe",
        user=SideVerdict(label="safe", score=user),
        response=SideVerdict(label="unsafe", score=response),
    )


@pytest.mark.parametrize(
    ("response", "side", "text"), [(0.97, "response", "b"), (0.01, "user", "a")]
)
def test_the_score_and_the_text_are_of_the_side_at_fault(
    response: float, side: str, text: str
) -> None:
    """A user's 0.002 beside `unsafe` sends whoever looks to the wrong words."""
    recent = Recent(ManualClock(), show_content=True)
    recent.add(verdict_of(0.02, response), text="a", response="b")
    (row,) = recent.activity().verdicts
    assert (row.side, row.text) == (side, text)
    assert row.score == max(0.02, response)


def test_free_categories_are_masked_like_content() -> None:
    """A phrase of a policy may be a user's own words; the log masks it, and so does this."""
    for show, name in ((False, "custom"), (True, CANARY)):
        recent = Recent(ManualClock(), show_content=show)
        categories = (
            CategoryVerdict(name="Harassment", source="builtin"),
            CategoryVerdict(name=CANARY, source="custom"),
        )
        recent.add(msgspec.structs.replace(make_verdict(), categories=categories))
        assert recent.activity().verdicts[0].categories == ("Harassment", name)


def test_times_are_told_by_their_quantiles() -> None:
    """Half, and nineteen of twenty, within a tenth, of the last minute alone."""
    clock = ManualClock()
    recent = Recent(clock)
    for took in (*[10.0] * 90, *[900.0] * 10):
        verdict = make_verdict()
        timings = msgspec.structs.replace(verdict.timings_ms, total=took)
        recent.add(msgspec.structs.replace(verdict, timings_ms=timings))
    clock.advance(1)
    activity = recent.activity()
    assert activity.p50_ms == pytest.approx(10, rel=0.11)
    assert activity.p95_ms == pytest.approx(900, rel=0.11)
    clock.advance(WINDOW_S + 1)
    assert recent.activity().p50_ms is None


def test_trouble_is_counted_by_code_with_where_it_stands() -> None:
    """The commonest first; since the start and lately; the last dead letters by coordinates."""
    clock = ManualClock()
    recent = Recent(clock)
    for reason, count in (("image_missing", 1), ("judge_timeout", 3)):
        for _ in range(count):
            verdict = msgspec.structs.replace(make_verdict(), outcome="undecided", user=None)
            recent.add(msgspec.structs.replace(verdict, undecided_reason=reason))
    clock.advance(WINDOW_S + 2)
    recent.add_dead_letter("not_json", "chat", 3, 77)
    clock.advance(1)
    activity = recent.activity()
    assert [(each.code, each.total, each.last_minute) for each in activity.undecided] == [
        ("judge_timeout", 3, 0),
        ("image_missing", 1, 0),
    ]
    (code,) = activity.dead_letter_codes
    assert (code.code, code.total, code.last_minute) == ("not_json", 1, 1)
    (letter,) = activity.last_dead_letters
    assert (letter.topic, letter.partition, letter.offset) == ("chat", 3, 77)


def test_an_event_is_found_by_its_id_and_without_its_content() -> None:
    """Beyond what the list shows; the last verdict on it; bounded."""
    recent = Recent(ManualClock(), show_content=True)
    for number in range(FINDABLE + 10):
        recent.add(make_verdict(event_id=f"e-{number}"), text=CANARY)
    found = recent.find(f"e-{FINDABLE - 50}")
    assert found is not None
    assert found.text == ""
    assert recent.find("e-0") is None
