"""What the engine is measured against: ``transformers.generate`` over whole prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

ANSWER_TOKENS = 12
"""Tokens of a verdict that is decoded."""


@torch.inference_mode()
def generate(model: Any, prompts: Sequence[Sequence[int]], batch: int, tokens: int) -> None:
    """Decode ``tokens`` behind every prompt (all of one length), ``batch`` at a time, greedily."""
    for start in range(0, len(prompts), batch):
        ids = torch.tensor([list(prompt) for prompt in prompts[start : start + batch]])
        ids = ids.to(model.device)
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
