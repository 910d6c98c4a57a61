"""Promises of the recipe that makes the demonstration checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moderation_tools.training.tiny.build import Steps, build
from moderation_tools.training.tiny.cases import generate
from moderation_tools.training.tiny.checkpoint import load
from moderation_tools.training.tiny.decode import decode

pytestmark = [pytest.mark.model, pytest.mark.slow]


def test_a_short_run_learns_and_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    """A few steps lower each stage's loss; the result loads and decodes."""
    torch.set_num_threads(1)
    lines: list[str] = []
    steps = Steps(base=14, vision=20, adapter=8)
    history = build(tmp_path / "tiny", seed=5, steps=steps, images=200, report=lines.append)
    for stage, losses in history.items():
        third = len(losses) // 3
        assert sum(losses[-third:]) < sum(losses[:third]), stage
    assert any("min left" in line for line in lines)
    model, processor = load(tmp_path / "tiny")
    (answer,) = decode(model, processor, generate(1, 1, "builtin"))
    assert isinstance(answer.raw, str)


def test_equal_seeds_give_equal_losses(tmp_path: Path) -> None:
    """The recipe is seeded: the first steps of two runs are the same on one machine."""
    torch.set_num_threads(1)
    steps = Steps(base=1, vision=1, adapter=1)
    first = build(tmp_path / "a", seed=6, steps=steps, images=40)
    assert build(tmp_path / "b", seed=6, steps=steps, images=40) == first
