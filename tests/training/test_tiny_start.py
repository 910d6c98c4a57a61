"""Promises of the heads' start: looking back and copying are there before anything is learnt."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch

from moderation_tools.training.tiny.model import model_config, new_model
from moderation_tools.training.tiny.start import CONSTANT, CONSTANT_VALUE
from moderation_tools.training.tiny.vocabulary import vocabulary

LENGTH, FIRST, AGAIN, RUN = 150, 40, 100, 10


@lru_cache
def attentions() -> tuple[torch.Tensor, ...]:
    """Attention of every layer, (heads, queries, keys): random tokens, ten of them said twice."""
    torch.set_num_threads(1)
    words = vocabulary()
    text = new_model(words, 0).model.language_model
    text.set_attn_implementation("eager")
    width = model_config(words).text_config.hidden_size
    drawn = torch.Generator().manual_seed(1)
    table = torch.randn(len(words.pieces), width, generator=drawn) * width**-0.5
    table[:, CONSTANT] = CONSTANT_VALUE
    tokens = torch.randint(300, 5000, (LENGTH,), generator=drawn)
    tokens[AGAIN : AGAIN + RUN] = tokens[FIRST : FIRST + RUN]
    with torch.no_grad():
        seen = text(
            inputs_embeds=table[tokens][None] * math.sqrt(width),
            use_cache=False,
            output_attentions=True,
        ).attentions
    return tuple(layer[0] for layer in seen)


@pytest.mark.parametrize("head", [0, 1])
def test_first_layer_looks_one_token_back(head: int) -> None:
    """Whatever the tokens are, two heads of the first layer see the one before."""
    back = attentions()[0][head, torch.arange(1, LENGTH), torch.arange(LENGTH - 1)]
    assert back.mean() > 0.8


@pytest.mark.parametrize("layer", [2, 3, 4])
@pytest.mark.parametrize("head", [2, 3])
def test_a_repeated_word_sees_what_followed_it(layer: int, head: int) -> None:
    """Where words are said again, two heads already lean to the word that came next before."""
    again = torch.arange(AGAIN, AGAIN + RUN)
    seen = attentions()[layer][head, again]
    followed = seen[torch.arange(RUN), torch.arange(FIRST + 1, FIRST + RUN + 1)]
    assert followed.mean() > 5 * seen.sum(-1).mean() / LENGTH
