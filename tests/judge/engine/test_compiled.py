"""``judge.compile`` fuses work and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.support import oracle
from tests.support.engine_cases import Source
from worker.judge.engine.device import EngineDevice
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ScoreResult


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own
def test_fused_layers_read_what_layers_one_by_one_read(
    open_engine: Callable[..., EngineDevice], plain: Checkpoint
) -> None:
    """Batches of every length, images and branches among them, without a graph for each length."""
    fused = open_engine(compile=True)
    source = Source(plain, 30)
    counts = []
    for batch in source.batches(source.cases(120)):
        asks = [case.ask() for case in batch]
        for got, ask in zip(fused.read(None, asks), asks, strict=True):
            assert isinstance(got, ScoreResult)
            alone = oracle.read_ask(plain, plain.model, ask)
            assert got.user.label == alone.user.label
            assert got.user.score == pytest.approx(alone.user.score, abs=1e-4)
            assert [c.name for c in got.categories] == [c.name for c in alone.categories]
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(counts) >= 4
    assert counts[-1] == counts[len(counts) // 2], "graphs are still being made"
