"""The image stage: the tower and the projector learn to say what stands where, as word embeddings.

Every soft token is taught the embedding of the word for the thing in its part of the image, so a
symbol means to the language model what its word means, under every rubric.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma3ForConditionalGeneration

from moderation_tools.training.tiny.checkpoint import image_processor
from moderation_tools.training.tiny.images import ImageSpec, draw_spec
from moderation_tools.training.tiny.lexicon import SHAPES, SYMBOLS
from moderation_tools.training.tiny.model import IMAGE_TOKENS
from moderation_tools.training.tiny.progress import Progress
from moderation_tools.training.tiny.schedule import schedule
from moderation_tools.training.tiny.seeding import stream
from moderation_tools.training.tiny.vocabulary import Vocabulary

_SIDE = math.isqrt(IMAGE_TOKENS)
THINGS = (*SYMBOLS, *SHAPES)
NOTHING = "<image_soft_token>"
_BACKGROUND_WEIGHT = 0.3


def image_pool(seed: int, count: int) -> list[ImageSpec]:
    """``count`` seeded images: half of them with one symbol, all with up to three shapes."""
    rng = stream("images", seed)
    pool = []
    for _ in range(count):
        symbol = rng.choice(list(SYMBOLS)) if rng.random() < 0.55 else None
        pool.append(draw_spec(rng, symbol, rng.sample(SHAPES, rng.randint(0, 3))))
    return pool


def pixels(specs: Sequence[ImageSpec]) -> torch.Tensor:
    """The drawn images as the processor hands them on, (images, 3, height, width)."""
    processor = image_processor()
    values: torch.Tensor = processor([spec.draw() for spec in specs], return_tensors="pt")[
        "pixel_values"
    ]
    return values


def cells(specs: Sequence[ImageSpec]) -> torch.Tensor:
    """What stands in each soft token's part, (images, tokens): an index of ``THINGS``, or last."""
    labels = torch.full((len(specs), IMAGE_TOKENS), len(THINGS))
    for index, spec in enumerate(specs):
        ratio = min(spec.width, spec.height)
        for thing in spec.things:
            reach_x = 0.5 * thing.size * ratio / spec.width
            reach_y = 0.5 * thing.size * ratio / spec.height
            for cell in range(IMAGE_TOKENS):
                row, column = divmod(cell, _SIDE)
                x, y = (column + 0.5) / _SIDE, (row + 0.5) / _SIDE
                if abs(x - thing.x) < reach_x and abs(y - thing.y) < reach_y:
                    labels[index, cell] = THINGS.index(thing.name)
    return labels


def train_vision(
    model: Gemma3ForConditionalGeneration,
    vocabulary: Vocabulary,
    steps: int,
    seed: int,
    *,
    batch: int = 48,
    rate: float = 2e-3,
    images: int = 8000,
    report: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """Train tower and projector against the frozen embedding; returns the loss of every step."""
    torch.manual_seed(seed)
    pool = image_pool(seed, images)
    shown, wanted = pixels(pool), cells(pool)
    width = model.config.text_config.hidden_size
    table = model.get_input_embeddings().weight.detach()
    names = [*(f" {name}" for name in THINGS), NOTHING]
    targets = table[[vocabulary.ids[name] for name in names]] * math.sqrt(width)
    projector, tower = model.model.multi_modal_projector, model.model.vision_tower
    nn.init.normal_(projector.mm_input_projection_weight, std=0.1)
    parameters = [*projector.parameters(), *tower.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    progress = Progress("vision", steps, report)
    weights = torch.ones(len(names))
    weights[-1] = _BACKGROUND_WEIGHT
    history = []
    for step in range(steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, min(100, max(1, steps // 5)))
        chosen = torch.randint(len(pool), (batch,), generator=generator)
        soft = model.model.get_image_features(shown[chosen]).pooler_output
        goal = wanted[chosen]
        logits = 8 * functional.normalize(soft, dim=-1) @ functional.normalize(targets, dim=-1).T
        named = functional.cross_entropy(logits.flatten(0, 1), goal.flatten(), weight=weights)
        off = (soft - targets[goal]).pow(2).mean(-1) * weights[goal]
        near = off.sum() / weights[goal].sum() / targets.pow(2).mean()
        loss = named + near
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        history.append(loss.item())
        right = float((logits.argmax(-1) == goal).float().mean())
        progress.step(
            step,
            {"named": named.item(), "near": near.item()},
            {"cell": right},
            time.perf_counter() - began,
        )
    return history


@torch.no_grad()
def soft_tokens(model: Gemma3ForConditionalGeneration, specs: Sequence[ImageSpec]) -> torch.Tensor:
    """The projected soft tokens of every image, (images, tokens, width)."""
    parts = [
        model.model.get_image_features(pixels(specs[start : start + 256])).pooler_output
        for start in range(0, len(specs), 256)
    ]
    return torch.cat(parts)
