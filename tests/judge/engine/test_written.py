"""What the THINK lane writes is what ``generate`` writes alone, token for token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.support import oracle
from tests.support.engine_cases import WINDOW, Case, Source, of_no_numbers
from worker.errors import Undecided
from worker.judge.engine.device import EngineDevice
from worker.judge.engine.kv_cache import KVSlots
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ReasoningRequest, ReasoningResult, ScoreResult
from worker.judgement import ThinkPlan

CASES = 240
ALWAYS = ThinkPlan(when="always")


def asks(
    engine: EngineDevice, cases: Sequence[Case], source: Source, seen: dict[str, int]
) -> list[ReasoningRequest]:
    """Traces to write: from the verdict's keys, or from nothing, as when those were not kept."""
    readings = engine.read(cases[0].adapter, [case.ask(think=ALWAYS) for case in cases])
    made = []
    for case, reading in zip(cases, readings, strict=True):
        assert isinstance(reading, ScoreResult)
        assert reading.known is not None
        row = reading.known if source.rng.random() < 0.7 else None
        seen["gone on"] += row is not None
        seen["image"] += case.context.pixels is not None
        seen["long" if len(case.thinking) > WINDOW else "short"] += 1
        made.append(ReasoningRequest(case.thinking, source.rng.randint(1, 40), row))
    return made


@pytest.mark.slow
def test_traces_are_what_generate_writes_whoever_joins_or_leaves_meanwhile(
    engine: EngineDevice,
    plain: Checkpoint,
    plain_models: dict[str | None, Any],
    adapters: list[str | None],
    record_property: Any,
) -> None:
    """Policies mixed, images, both sides of the window; new traces join between any two steps,
    and some are given up in the middle."""
    source = Source(plain, 5)
    cases = source.cases(CASES, adapters)
    seen = dict.fromkeys(("long", "short", "image", "gone on", "dropped", "joined", "equal"), 0)
    for adapter in adapters:
        left = asks(engine, [case for case in cases if case.adapter == adapter], source, seen)
        lane = engine.reasoning(adapter)
        open_asks: dict[int, ReasoningRequest] = {}
        while left or lane.active:
            if left and (not lane.active or source.rng.random() < 0.3):
                seen["joined"] += lane.active
                count = source.rng.randint(1, 8)
                numbers = lane.add(left[:count])
                open_asks.update(zip(numbers, left[:count], strict=True))
                left = left[count:]
            if open_asks and source.rng.random() < 0.05:
                number = source.rng.choice(list(open_asks))
                lane.drop(number)
                del open_asks[number]
                seen["dropped"] += 1
            if not lane.active:
                continue
            for number, trace in lane.step():
                ask = open_asks.pop(number)
                assert isinstance(trace, ReasoningResult), trace
                alone = oracle.generate(plain_models[adapter], ask.context, (), ask.budget)
                assert list(trace.ids) == alone, (len(ask.context), seen)
                seen["equal"] += 1
        assert not open_asks
    figures = f"{CASES} traces: {seen}"
    record_property("figures", figures)
    print(figures)
    assert seen["equal"] + seen["dropped"] == CASES, figures
    assert min(seen.values()) >= 5, figures
    assert seen["equal"] >= 200, figures


def test_a_verdict_behind_a_trace_is_read_as_behind_the_whole_text(
    engine: EngineDevice, plain: Checkpoint
) -> None:
    """From the trace's keys, or computed anew where these were not kept."""
    source = Source(plain, 6)
    cases = source.cases(24)
    seen = dict.fromkeys(("safe", "unsafe"), 0)
    for ask, case in zip(asks(engine, cases, source, _unseen()), cases, strict=True):
        lane = engine.reasoning(None)
        lane.add([ask])
        found: list[tuple[int, ReasoningResult | Undecided]] = []
        while lane.active:
            found += lane.step()
        ((_, trace),) = found
        assert isinstance(trace, ReasoningResult)
        behind = ask.context.extended(trace.ids)
        for row in (trace.known, None):
            (got,) = engine.read(None, [case.ask(context=behind, known=row)])
            assert isinstance(got, ScoreResult)
            alone = oracle.read_ask(plain, plain.model, case.ask(context=behind))
            assert got.user.label == alone.user.label
            assert got.user.score == pytest.approx(alone.user.score, abs=1e-4)
            assert [c.name for c in got.categories] == [c.name for c in alone.categories]
            seen[got.user.label] += 1
    assert min(seen.values()) >= 4, seen


def test_traces_that_found_no_memory_leave_the_others_as_they_were(
    engine: EngineDevice, plain: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those that are being written nor those that join later read another one's keys."""
    source = Source(plain, 7)
    lane = engine.reasoning(None)
    open_asks: dict[int, ReasoningRequest] = {}

    def made(count: int) -> list[ReasoningRequest]:
        return asks(engine, [source.case() for _ in range(count)], source, _unseen())

    def join(joining: list[ReasoningRequest]) -> None:
        open_asks.update(zip(lane.add(joining), joining, strict=True))

    join(made(3))
    many = made(30)
    ended = {number for number, _ in lane.step()}
    reserve, rows = KVSlots._reserve, [0]

    def short(self: KVSlots, *room: Any) -> None:
        rows[0] += len(self) >= 2
        if rows[0] > 3:  # some of those that join have done so by then
            raise torch.OutOfMemoryError("CUDA out of memory")
        reserve(self, *room)

    before = dict(open_asks)
    monkeypatch.setattr(KVSlots, "_reserve", short)
    with pytest.raises(torch.OutOfMemoryError):
        join(many)
    monkeypatch.undo()
    assert open_asks == before
    join(made(5))
    equal = 0
    while lane.active:
        for number, trace in lane.step():
            assert isinstance(trace, ReasoningResult)
            ask = open_asks.pop(number, None)
            if ask is not None:
                assert list(trace.ids) == oracle.generate(plain.model, ask.context, (), ask.budget)
                equal += 1
    assert open_asks == {} or {*open_asks} <= {*ended}
    assert equal + len(ended) == 8


def test_a_row_of_no_numbers_leaves_nothing_to_the_one_that_takes_its_slot(
    engine: EngineDevice, plain: Checkpoint
) -> None:
    """A NaN shines through a mask: what follows in its place is not touched by it."""
    source = Source(plain, 8)
    made = asks(engine, [source.case() for _ in range(12)], source, _unseen())
    made = [ask for ask in made if ask.known is not None]
    made.sort(key=lambda ask: len(ask.context) - ask.context.policy)
    *short, bad, longest = made
    assert bad.known is not None
    poisoned = dataclasses.replace(bad.known, kv=of_no_numbers(bad.known.kv))
    bad = dataclasses.replace(bad, known=poisoned)
    for ask in short[:4]:
        lane = engine.reasoning(None)
        # The longest makes every slot as wide as the one that is given up.
        first, second = lane.add([dataclasses.replace(longest, budget=60), bad])
        found = dict(lane.step())
        assert isinstance(found.pop(second), Undecided)
        assert first not in found, "it has to be there as long as the others"
        (number,) = lane.add([ask])
        while number not in found:
            found.update(lane.step())
        trace = found[number]
        assert isinstance(trace, ReasoningResult)
        assert list(trace.ids) == oracle.generate(plain.model, ask.context, (), ask.budget)


def _unseen() -> dict[str, int]:
    return dict.fromkeys(("long", "short", "image", "gone on"), 0)
