"""The adapter: LoRA on the real template, with all answer lines, THINK traces and images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from moderation_tools.training.tiny import constants as text
from moderation_tools.training.tiny.cases import Case, Mix, draw_case
from moderation_tools.training.tiny.packing import IGNORED, Batch, Packer, Row, collate, see_images
from moderation_tools.training.tiny.progress import Progress
from moderation_tools.training.tiny.prompt import TURN_CLOSE, closing_text
from moderation_tools.training.tiny.rubrics import MODES, draw_rubric
from moderation_tools.training.tiny.schedule import schedule
from moderation_tools.training.tiny.seeding import stream
from moderation_tools.training.tiny.vision import image_pool, soft_tokens
from moderation_tools.training.tiny.vocabulary import Vocabulary

MIX = Mix(
    response=0.55,
    folded=0.1,
    image=0.15,
    think=0.5,
    no_categories=0.08,
    unsafe=0.6,
    long=0.015,
    pairs=0.5,
)
"""Many cases with several forbidden words: of those, one is easily passed over."""
LONG_MIX = replace(MIX, response=0.65, image=0.06, long=0.75)
LONG_EVERY, LONG_ROWS, LONG_BUDGET = 4, 2, 1100
_MODE_WEIGHTS = (3, 3, 3, 4)
_CONSTANT_WEIGHT = 0.2
FORMAL: tuple[str, ...] = (
    text.USER_LABEL,
    text.RESPONSE_LABEL,
    text.THINK_OPEN,
    text.THINK_CLOSE,
)
"""Tokens that say nothing about a case: their place follows from what was asked for."""

TARGETS = (
    r".*language_model\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
"""All seven projections of every text layer; the image tower and the embedding stay the base's."""


class AdapterTrainer:
    """Owns the frozen base with its adapter, and the pool of images as soft tokens."""

    def __init__(
        self,
        model: Gemma3ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        vocabulary: Vocabulary,
        seed: int,
        *,
        rank: int = 32,
        images: int = 8000,
    ) -> None:
        torch.manual_seed(seed)
        self._pool = image_pool(seed + 1, images)
        self._soft = soft_tokens(model, self._pool)
        self._place = {id(spec): index for index, spec in enumerate(self._pool)}
        config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=TARGETS)
        self.peft: PeftModel = get_peft_model(model, config)
        self._text = model.model.language_model
        self._table = model.get_input_embeddings().weight.detach()
        self._packer = Packer(tokenizer, vocabulary)
        self._padding = vocabulary.ids["<pad>"]
        self._image_token = vocabulary.ids["<image_soft_token>"]
        self._weights = torch.ones(len(vocabulary.pieces))
        self._weights[[vocabulary.ids[piece] for piece in FORMAL]] = _CONSTANT_WEIGHT
        self._rng = stream("lora", seed)

    def batch(self, rows: int, budget: int, mix: Mix = MIX) -> Batch:
        """Fresh rows of real prompts with their answers, each row under its own rubric."""
        packed: list[Row] = []
        shown: list[Case] = []
        for _ in range(rows):
            rubric = draw_rubric(self._rng, self._rng.choices(MODES, _MODE_WEIGHTS)[0])
            cases = [draw_case(self._rng, rubric, mix, None, self._pool) for _ in range(16)]
            row, taken = self._packer.row(
                rubric,
                cases,
                lambda case: closing_text(case.kwargs),
                lambda case: case.answer() + TURN_CLOSE,
                budget,
            )
            packed.append(row)
            shown += [case for case in taken if case.image is not None]
        batch = collate(packed, shown, self._padding)
        see_images(batch, self._image_token)
        return batch

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """Weighted cross-entropy of the answers and, for the log, the shares of right tokens."""
        embedded = self._table[batch["tokens"]] * math.sqrt(self._table.shape[1])
        soft = batch["tokens"] == self._image_token
        if batch.images:
            places = [self._place[id(case.image)] for case in batch.images]
            embedded[soft] = self._soft[places].flatten(0, 1)
        states = self._text(
            inputs_embeds=embedded,
            attention_mask=batch.masks,
            position_ids=batch["position"],
            use_cache=False,
        ).last_hidden_state
        asked = batch["target"] != IGNORED
        wanted = batch["target"][asked]
        logits = states[asked] @ self._table.T
        weights = self._weights[wanted]
        each = functional.cross_entropy(logits, wanted, reduction="none")
        hit = (logits.argmax(-1) == wanted).float()
        informative = weights == 1.0
        return (each * weights).sum() / weights.sum(), {
            "constant": hit[~informative].mean().item(),
            "informative": hit[informative].mean().item(),
        }


def train_adapter(
    trainer: AdapterTrainer,
    steps: int,
    *,
    rows: int = 5,
    budget: int = 560,
    rate: float = 4e-3,
    report: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """Train the adapter for ``steps``; returns the loss of every step.

    Every fourth batch is made of long texts, in few rows that have room for them: among short
    events a long one hardly ever fits, and its answer would weigh next to nothing.
    """
    parameters = [p for p in trainer.peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    progress = Progress("adapter", steps, report)
    history = []
    for step in range(steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, min(100, max(1, steps // 5)))
        if step % LONG_EVERY == LONG_EVERY - 1:
            batch = trainer.batch(LONG_ROWS, LONG_BUDGET, LONG_MIX)
        else:
            batch = trainer.batch(rows, budget)
        loss, right = trainer.loss(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        history.append(loss.item())
        progress.step(step, {"answer": loss.item()}, right, time.perf_counter() - began)
    return history
