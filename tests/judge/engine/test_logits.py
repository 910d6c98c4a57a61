"""The packed forward's logits are those of the plain model, in fp32, over everything it packs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support import oracle
from tests.support.engine_cases import WINDOW, Case, Source, text
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.device import Engine, EngineDevice
from worker.judge.engine.kv_cache import SequenceKV
from worker.judge.engine.sequences import sequences_for
from worker.judge.local.loading import Checkpoint

CASES = 1_100
TOLERANCE = 1e-4


def branched(rng: Any, row: InputSequence) -> InputSequence:
    """The row with up to three branches behind it, asked about at a few of its tokens."""
    branches = tuple(text(rng, 9) for _ in range(rng.choice((0, 0, 1, 2, 3))))
    count = len(row.ids) + sum(len(branch) for branch in branches)
    asked = rng.sample(range(count), rng.randint(0, min(count, 12)))
    wanted = tuple(sorted({*asked, len(row.ids) - 1}))
    return InputSequence(row.ids, row.prefix, row.past, branches, row.image, wanted)


def known_before(engine: Engine, case: Case, rng: Any) -> SequenceKV | None:
    """The first part of a context, computed apart: what an earlier pass or piece left behind."""
    context = case.context
    own = len(context) - context.policy
    if own <= 2 or rng.random() < 0.6:
        return None
    (whole,) = sequences_for([context], [None], engine.prefixes, engine.images)
    end = rng.randint(1, own - 1)
    picture = whole.image
    if picture is not None and picture.start < end < picture.end:
        end = rng.choice((picture.start, picture.end))
    if end == 0:
        return None
    if picture is not None and end <= picture.start:
        picture = None
    part = InputSequence(whole.ids[:end], whole.prefix, image=picture)
    kept = engine.forward.run([part], keep=[True]).kept[0]
    assert kept is not None
    return kept.trimmed(engine.forward.weights)


def largest_difference(model: Any, case: Case, row: InputSequence, logits: torch.Tensor) -> float:
    """Between the row's logits and those of the whole context (and each branch) run alone."""
    trunk, worst, start = len(row.ids), 0.0, 0
    first = len(case.context) - trunk
    spans: list[tuple[int, int, tuple[int, ...]]] = []
    if not row.branches:
        spans.append((0, trunk, ()))
    for branch in row.branches:
        spans.append((start, start + len(branch), branch))
        start += len(branch)
    for begin, end, branch in spans:
        alone = oracle.logits(model, case.context, branch)
        for place, token in enumerate(row.wanted):
            if token < trunk:
                expected = alone[first + token]
            elif begin <= token - trunk < end:
                expected = alone[first + trunk + token - trunk - begin]
            else:
                continue
            worst = max(worst, float((logits[place] - expected).abs().max()))
    return worst


@pytest.mark.slow
def test_a_thousand_packed_cases_have_the_logits_of_whole_forwards(
    engine: EngineDevice,
    plain: Checkpoint,
    plain_models: dict[str | None, Any],
    adapters: list[str | None],
    record_property: Any,
) -> None:
    """One to fifty policies in a forward, both sides of the window, images, adapters, branches,
    rows that go on from what was computed, policies that are kept and policies that are not."""
    source = Source(plain, 1)
    cases = source.cases(CASES, adapters)
    seen = dict.fromkeys(
        ("short", "long", "image", "gone on", "image behind", "branches", "mixed"), 0
    )
    worst = 0.0
    for batch in source.batches(cases):
        run = engine.engine(batch[0].adapter)
        known = [known_before(run, case, source.rng) for case in batch]
        contexts = [case.context for case in batch]
        whole = sequences_for(contexts, known, run.prefixes, run.images)
        rows = [branched(source.rng, row) for row in whole]
        seen["mixed"] = max(seen["mixed"], len({id(row.prefix) for row in rows}))
        logits = run.forward.run(rows, keep=[source.rng.random() < 0.5 for _ in rows]).logits
        for case, row, got in zip(batch, rows, logits, strict=True):
            model = plain_models[case.adapter]
            worst = max(worst, largest_difference(model, case, row, got))
            seen["short" if len(case.context) <= WINDOW else "long"] += 1
            seen["image"] += case.context.pixels is not None
            seen["gone on"] += row.past is not None
            seen["image behind"] += row.past is not None and row.image is not None
            seen["branches"] += bool(row.branches)
    runs = [engine.engine(adapter) for adapter in adapters]
    seen["policy hits"] = sum(run.prefixes.hits for run in runs)
    seen["policy misses"] = sum(run.prefixes.misses for run in runs)
    seen["image hits"] = sum(run.images.hits for run in runs)
    figures = f"{CASES} cases, largest |difference| {worst:.1e}, {seen}"
    record_property("figures", figures)
    print(figures)
    assert worst <= TOLERANCE, figures
    assert seen.pop("mixed") >= 15, figures
    assert seen.pop("image behind") >= 20, figures
    assert min(seen.values()) >= 90, figures


def test_fifty_policies_in_one_forward_are_fifty_forwards(
    engine: EngineDevice, plain: Checkpoint
) -> None:
    """One event of each, in any order, those between them that share one too."""
    source, run = Source(plain, 3), engine.engine(None)
    cases: dict[tuple[int, ...], Case] = {}
    while len(cases) < len(source.policies):
        case = source.case()
        cases[case.context.ids[: case.context.policy]] = case
    mixed = [*cases.values(), *source.cases(10)]
    source.rng.shuffle(mixed)
    contexts = [case.context for case in mixed]
    rows = [
        branched(source.rng, row)
        for row in sequences_for(contexts, [None] * len(mixed), run.prefixes, run.images)
    ]
    logits = run.forward.run(rows).logits
    assert len(cases) == 50
    worst = max(
        largest_difference(plain.model, case, row, got)
        for case, row, got in zip(mixed, rows, logits, strict=True)
    )
    assert worst <= TOLERANCE
