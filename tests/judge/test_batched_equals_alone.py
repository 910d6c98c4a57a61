"""A context is judged the same in any company: batches equal the plain full forward, in fp32."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.support import oracle
from tests.support.checkpoints import WINDOW
from tests.support.judge_cases import requests
from worker.errors import Undecided
from worker.judge.local.judge import LocalJudge
from worker.judge.local.label_scores import Limits
from worker.judge.local.loading import load, load_model
from worker.judge.local.lora import read_adapter
from worker.judge.local.prompt import Prompter
from worker.judge.local.reasoning import PlainReasoning
from worker.judge.local.requests import ReasoningRequest, ReasoningResult
from worker.judge.reference.decode import Context, GreedyStream, Writing, last_logits
from worker.judgement import Judgement
from worker.settings import JudgeSettings

CASES = 200
TOLERANCE = 1e-4


@pytest.mark.slow
async def test_a_mixed_batch_judges_every_context_as_it_would_be_judged_alone(
    checkpoint: Path,
) -> None:
    """Labels and categories equal, scores to 1e-4, over policies, images, adapters and lengths."""
    settings = JudgeSettings(model=str(checkpoint), max_batch=16)
    adapters = (None, None, None, str(checkpoint / "first"), str(checkpoint / "second"))
    cases = requests(1, CASES, adapters=adapters, longest=100)
    judge = LocalJudge(settings, min_constant=0.0)
    await judge.start()
    judged: list[Judgement] = await asyncio.gather(*(judge.judge(case) for case in cases))
    await judge.stop()

    plain = load(settings)
    prompter = Prompter(plain, context_budget=settings.context_budget)
    models: dict[str | None, Any] = {None: plain.model}
    for adapter in adapters[3:]:
        assert adapter is not None
        models[adapter] = load_model(
            plain.source, read_adapter(Path(adapter)), plain.model.device, plain.model.dtype
        )
    seen = {"unsafe": 0, "safe": 0, "below": 0, "above": 0, "images": 0}
    for case, got in zip(cases, judged, strict=True):
        alone = oracle.read(plain, models[case.adapter], case, prompter)
        assert got.user.label == alone.user.label
        assert got.user.score == pytest.approx(alone.user.score, abs=TOLERANCE)
        assert (got.response is None) == (alone.response is None)
        if got.response is not None and alone.response is not None:
            assert got.response.label == alone.response.label
            assert got.response.score == pytest.approx(alone.response.score, abs=TOLERANCE)
        assert [c.name for c in got.categories] == [c.name for c in alone.categories]
        for ours, theirs in zip(got.categories, alone.categories, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=TOLERANCE)
        assert got.floor_score == pytest.approx(alone.floor_score, abs=TOLERANCE)
        seen[got.user.label] += 1
        seen["below" if got.input_tokens < WINDOW else "above"] += 1
        seen["images"] += case.image is not None
    assert min(seen.values()) >= 25, f"the cases do not cover both sides: {seen}"


def test_left_padding_is_exact_on_both_sides_of_the_sliding_window(checkpoint: Path) -> None:
    """One short context beside one three windows long: the short one's logits do not move."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    contexts = [Context(tuple(range(10, 10 + n))) for n in (5, WINDOW - 1, WINDOW + 1, 3 * WINDOW)]
    contexts = [Context(tuple(10 + i % 800 for i in c.ids)) for c in contexts]
    together = last_logits(plain.model, contexts, 0, 1)[:, -1]
    for context, row in zip(contexts, together, strict=True):
        alone = oracle.logits(plain.model, context)[-1]
        assert (row - alone).abs().max() < 1e-4


def test_image_tokens_attend_both_ways_in_any_company(checkpoint: Path) -> None:
    """Images beside text, at different offsets: the logits of one context with its types alone."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    prompter = Prompter(plain, context_budget=256)
    contexts = [prompter.prepare(case).context for case in requests(5, 30, longest=60)]
    seen = [context for context in contexts if context.pixels is not None]
    assert len(seen) >= 4
    together = last_logits(plain.model, contexts, 0, 1)[:, -1]
    moved = 0.0
    for context, row in zip(contexts, together, strict=True):
        assert (row - oracle.logits(plain.model, context)[-1]).abs().max() < 1e-4
        if context.pixels is not None:
            causal = Context(context.ids, tuple(0 for _ in context.ids), context.pixels)
            moved = max(moved, float((row - oracle.logits(plain.model, causal)[-1]).abs().max()))
    assert moved > 1e-2, "these weights could not tell a causal image from a whole one"


def test_decoding_in_lock_step_writes_what_generate_writes_alone(checkpoint: Path) -> None:
    """Rows of different length, budget and end, images among them: token for token."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    prompter = Prompter(plain, context_budget=256)
    cases = requests(2, 16, longest=300)
    contexts = [prompter.prepare(case).context for case in cases]
    budgets = [budget for budget, _ in zip(itertools.cycle((3, 40, 17)), cases, strict=False)]
    stream = GreedyStream(
        plain.model, contexts, budgets, pad=0, writing=Writing(plain.answer.stop, (1, 2))
    )
    for context, budget, written in zip(contexts, budgets, stream.run(), strict=True):
        assert written.ids == oracle.generate(plain.model, context, (), budget)
        assert written.ended in ("stop", "length")


def test_traces_written_together_equal_traces_written_alone(checkpoint: Path) -> None:
    """The THINK lane's decoding changes no token, whoever leaves the group meanwhile."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    prompter = Prompter(plain, context_budget=256)
    contexts = [prompter.thinking(prompter.prepare(case)) for case in requests(3, 12)]
    asks = [ReasoningRequest(context, 20 + index) for index, context in enumerate(contexts)]
    writer = PlainReasoning(plain.model, plain.answer, plain.tokenizer, 0)
    writer.add(asks)
    ended: dict[int, ReasoningResult | Undecided] = {}
    for step in itertools.count():
        if step == 5:
            writer.drop(3)
        ended.update(writer.step())
        if not writer.active:
            break
    assert len(ended) == len(asks)
    for index, ask in enumerate(asks):
        if index != 3:
            trace = ended[index]
            assert not isinstance(trace, Exception)
            assert list(trace.ids) == oracle.generate(plain.model, ask.context, (), ask.budget)


def test_limits_of_one_forward_do_not_change_answers(checkpoint: Path) -> None:
    """One row a forward or thirty-two: the same readings."""
    from worker.judge.local.batch_scoring import plain_reader
    from worker.judge.local.prompt import answer_budget
    from worker.judge.local.requests import ScoreRequest, ScoreResult

    plain = load(JudgeSettings(model=str(checkpoint)))
    prompter = Prompter(plain, context_budget=256)
    asks = []
    for case in requests(4, 16):
        prepared = prompter.prepare(case)
        budget = answer_budget(case.rubric)
        has = prepared.response is not None
        asks.append(ScoreRequest(prepared.context, has, case.rubric, 0.5, budget))
    results = []
    for limits in (Limits(1, 10), Limits(5, 2_000), Limits(32, 100_000)):
        reader = plain_reader(plain.model, plain.answer, plain.tokenizer, limits, min_constant=0.0)
        results.append(reader.read(asks))
    for rows in zip(*results, strict=True):
        first = rows[0]
        assert isinstance(first, ScoreResult)
        for other in rows[1:]:
            assert isinstance(other, ScoreResult)
            assert other.user.score == pytest.approx(first.user.score, abs=TOLERANCE)
            assert [c.name for c in other.categories] == [c.name for c in first.categories]
