"""Attention to keys that all lie before their queries: a policy's, or what came before a piece.

In a sliding layer a query sees those that are less than a window behind it, as positions count::

    keys     first ........................ first + count
    sees                  [ window ] ^ query: keys from its position - window + 1 on
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from worker.judge.engine.attention import BLIND, Part, attend, fold, unfold
from worker.judge.engine.keys import LayerKV
from worker.judge.engine.weights import Shape


class Near(NamedTuple):
    """What of earlier keys each query sees: a ``mask`` as ``added`` makes it, and the queries
    (queries,) that are ``blind``, seeing none; both None where every query sees all of them."""

    mask: torch.Tensor | None = None
    blind: torch.Tensor | None = None


ALL = Near()
"""Every query sees every key, as in layers that do not slide."""


def near(
    positions: torch.Tensor, first: int, count: int, shape: Shape, dtype: torch.dtype
) -> Near | None:
    """What queries at ``positions`` see in a sliding layer of ``count`` keys from ``first`` on;
    None where none sees any."""
    if int(positions.max()) - first < shape.window:
        return ALL
    keys = torch.arange(first, first + count, device=positions.device)
    seen = positions[:, None] - keys[None, :] < shape.window
    blind = ~seen.any(1)
    if bool(blind.all()):
        return None
    # A query that sees nothing would be no number: it sees all, and its part gets no weight.
    return Near(added((seen | blind[:, None])[None], shape, dtype), blind)


def before(query: torch.Tensor, layer: LayerKV, seen: Near | None, shape: Shape) -> Part | None:
    """``query`` (queries, heads, head_dim) with earlier keys; None where none sees any."""
    key, value = layer
    if seen is None or key.shape[1] == 0:
        return None
    mask, blind = seen
    out, lse = attend(fold(query[None], shape.kv_heads), key[None], value[None], shape.scale, mask)
    part = unfold(out, lse, query.shape[0])
    if blind is None:
        return Part(part.out[0], part.lse[0])
    return Part(
        part.out[0].masked_fill(blind[:, None, None], 0.0),
        part.lse[0].masked_fill(blind[:, None], BLIND),
    )


def added(seen: torch.Tensor, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    """(rows, queries, keys) of bool as what is added to folded scores."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    mask.masked_fill_(~seen, BLIND)
    return mask.repeat(1, shape.groups, 1)[:, None]
