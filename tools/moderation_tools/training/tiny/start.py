"""How the text layers start: heads that already do what copying and looking up are made of.

Learning finds these circuits from a random start too, but in hours instead of minutes:

- *previous token* (layer 0, two heads): looks one token back and notes that token's identity in the
  half of the residual stream that identities are not read from.
- *same word* (other layers, two heads): keys equal queries, so a word looks at the same word.
- *what followed* (layers 2 to 4, two heads): a word looks at the token whose noted predecessor it
  is; together with the first this is an induction head, which copies names of several words.
- From layer 2 on a head hands on what it sees unchanged (output = transposed value projection).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3TextModel

CONSTANT = 0
"""The entry of the residual stream in which every embedding starts with the same value."""
CONSTANT_VALUE = 0.35
_QUIET = -0.6
_SHARP = 0.5
_FIRST_FREQUENCIES = 5
_FOLLOWING_LAYERS = (2, 3, 4)


@torch.no_grad()
def start_heads(text: Gemma3TextModel) -> None:
    """Set the projections of every layer of a Gemma 3 text model in place."""
    config = text.config
    width, size, heads = config.hidden_size, config.head_dim, config.num_attention_heads
    basis = torch.linalg.qr(torch.randn(width, width)).Q
    identity, note = basis[: width // 2], basis[width // 2 :]
    for index, layer in enumerate(text.layers):
        attention, mlp = layer.self_attn, layer.mlp
        layer.post_attention_layernorm.weight.fill_(0.0 if index == 0 else _QUIET)
        layer.post_feedforward_layernorm.weight.fill_(_QUIET)
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.normal_(0.0, width**-0.5)
        mlp.gate_proj.weight.normal_(0.0, width**-0.5)
        mlp.up_proj.weight.normal_(0.0, width**-0.5)
        mlp.down_proj.weight.normal_(0.0, 0.5 * config.intermediate_size**-0.5)
        nn.init.orthogonal_(attention.v_proj.weight)
        if index < 2:
            attention.o_proj.weight.normal_(0.0, 0.5 * width**-0.5)
        else:
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight.fill_(1.0 if index == 0 else _SHARP)
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            half = slice(head % 2 * size, (head % 2 + 1) * size)
            if index == 0 and head < 2:
                _look_back(
                    attention, rows, config.rope_parameters["sliding_attention"]["rope_theta"]
                )
                attention.v_proj.weight[rows] = identity[half]
                attention.o_proj.weight[:, rows] = note[half].T
            elif index > 0 and head < 2:
                attention.q_proj.weight[rows] = identity[half]
                attention.k_proj.weight[rows] = identity[half]
            elif index in _FOLLOWING_LAYERS:
                attention.q_proj.weight[rows] = identity[half]
                attention.k_proj.weight[rows] = note[half]


def _look_back(attention: Gemma3Attention, rows: slice, theta: float) -> None:
    """Queries and keys from the constant entry alone, turned by one position against each other."""
    size = rows.stop - rows.start
    angles = theta ** -(torch.arange(_FIRST_FREQUENCIES) * 2 / size)
    for projection, turn in ((attention.q_proj, 0.0), (attention.k_proj, 1.0)):
        projection.weight[rows] *= 0.05
        column = projection.weight[rows, CONSTANT].zero_()
        column[:_FIRST_FREQUENCIES] = torch.cos(turn * angles)
        column[size // 2 : size // 2 + _FIRST_FREQUENCIES] = torch.sin(turn * angles)
        projection.weight[rows, CONSTANT] = column
