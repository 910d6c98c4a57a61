"""The whole recipe: tokenizer, base, image tower, adapter, in this order, from one seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from moderation_tools.training.tiny.checkpoint import new_processor, save_adapter, save_base
from moderation_tools.training.tiny.dense import DenseTrainer, train_dense
from moderation_tools.training.tiny.lora import AdapterTrainer, train_adapter
from moderation_tools.training.tiny.model import new_model
from moderation_tools.training.tiny.tokenizer import build_tokenizer
from moderation_tools.training.tiny.vision import train_vision
from moderation_tools.training.tiny.vocabulary import vocabulary


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of each stage."""

    base: int = 1500
    vision: int = 2200
    adapter: int = 4000


def build(
    directory: Path,
    *,
    seed: int = 0,
    steps: Steps | None = None,
    images: int = 8000,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float]]:
    """Write a checkpoint to ``directory``; returns the loss of every step, by stage.

    ``images`` is how many images the tower and the adapter are shown, over and over.
    """
    steps = steps or Steps()
    began = time.monotonic()
    words = vocabulary()
    tokenizer = build_tokenizer()
    model = new_model(words, seed)
    dense = DenseTrainer(model, tokenizer, words, seed)
    history = {"base": train_dense(dense, steps.base, report=report)}
    history["vision"] = train_vision(model, words, steps.vision, seed, images=images, report=report)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    save_base(model, new_processor(tokenizer), directory)
    adapter = AdapterTrainer(model, tokenizer, words, seed, images=images)
    history["adapter"] = train_adapter(adapter, steps.adapter, report=report)
    save_adapter(adapter.peft, directory)
    report(f"wrote {directory} in {(time.monotonic() - began) / 60:.1f} min")
    return history
