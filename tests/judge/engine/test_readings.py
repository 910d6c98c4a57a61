"""Verdicts, categories and scores of the engine are those of the plain model, in fp32."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import oracle
from tests.support.engine_cases import WINDOW, Case, Source
from worker.errors import Undecided
from worker.judge.engine.device import EngineDevice
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judgement import ThinkPlan

CASES = 1_000
TOLERANCE = 1e-4
ALWAYS = ThinkPlan(when="always")


def read(engine: EngineDevice, adapter: str | None, asks: list[ScoreRequest]) -> list[ScoreResult]:
    """What the scheduler does: long contexts piece by piece, then everything in one read."""
    ready = []
    for ask in asks:
        prefill = engine.prefill(adapter, ask)
        while prefill is not None:
            stepped = prefill.step()
            if stepped is not None:
                ask, prefill = stepped, None
        ready.append(ask)
    return [whole(each) for each in engine.read(adapter, ready)]


def whole(reading: ScoreResult | Undecided) -> ScoreResult:
    assert isinstance(reading, ScoreResult)
    return reading


def difference(got: ScoreResult, alone: ScoreResult) -> float:
    """The largest difference of their scores; what is no score has to be equal."""
    assert (got.response is None) == (alone.response is None)
    assert got.user.label == alone.user.label
    assert [c.name for c in got.categories] == [c.name for c in alone.categories]
    assert got.categories_complete == alone.categories_complete
    pairs = [(got.user.score, alone.user.score), (got.floor_score, alone.floor_score)]
    pairs += [
        (float(ours.score or 0.0), float(theirs.score or 0.0))
        for ours, theirs in zip(got.categories, alone.categories, strict=True)
    ]
    if got.response is not None and alone.response is not None:
        assert got.response.label == alone.response.label
        pairs.append((got.response.score, alone.response.score))
    return max(abs(ours - theirs) for ours, theirs in pairs)


@pytest.mark.slow
def test_a_thousand_cases_get_the_verdicts_categories_and_scores_of_the_plain_model(
    engine: EngineDevice,
    plain: Checkpoint,
    plain_models: dict[str | None, Any],
    adapters: list[str | None],
    record_property: Any,
) -> None:
    """Policies mixed, images, adapters, both THINK switches (the second from the first's keys),
    contexts computed in pieces of forty tokens."""
    source = Source(plain, 2)
    seen = dict.fromkeys(("unsafe", "safe", "response", "image", "pieces", "thinking", "long"), 0)
    worst, count = 0.0, 0
    for batch in source.batches(source.cases(2 * CASES // 3 + 40, adapters)):
        adapter = batch[0].adapter
        model = plain_models[adapter]
        asks = [case.ask(think=ALWAYS) for case in batch]
        seen["pieces"] += sum(engine.prefill(adapter, ask) is not None for ask in asks)
        readings = read(engine, adapter, asks)
        again = [
            (case, case.ask(context=case.thinking, known=reading.known))
            for case, reading in zip(batch, readings, strict=True)
            if source.rng.random() < 0.5
        ]
        thought = read(engine, adapter, [ask for _, ask in again])
        pairs: list[tuple[Case, ScoreRequest, ScoreResult]] = [
            *zip(batch, asks, readings, strict=True),
            *((case, ask, got) for (case, ask), got in zip(again, thought, strict=True)),
        ]
        for case, ask, got in pairs:
            worst = max(worst, difference(got, oracle.read_ask(plain, model, ask)))
            seen[got.user.label] += 1
            seen["response"] += ask.response
            seen["image"] += case.context.pixels is not None
            seen["thinking"] += ask.context is case.thinking
            seen["long"] += len(ask.context) > WINDOW
            count += 1
    figures = f"{count} cases, largest difference of a score {worst:.1e}, {seen}"
    record_property("figures", figures)
    print(figures)
    assert count >= CASES, figures
    assert worst <= TOLERANCE, figures
    assert min(seen.values()) >= 100, figures
