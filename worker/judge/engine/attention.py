"""Attention in parts that are computed apart and merged exactly.

Softmax over the union of two sets of keys follows from the softmax over each and its
log-sum-exp ``l`` (the identity behind FlashAttention and Hydragen, arXiv 2402.05099)::

    out = (e^l1 out1 + e^l2 out2) / (e^l1 + e^l2)

So the queries of all events meet a policy's keys once, as one long matrix, and each event meets
its own keys in a small batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

BLIND = float("-inf")
"""Log-sum-exp of a query that sees none of the keys: its part has no weight."""


class Part(NamedTuple):
    """Attention over some of the keys: ``out`` (tokens, heads, head_dim), ``lse`` (tokens, heads)
    in float32."""

    out: torch.Tensor
    lse: torch.Tensor


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, heads, queries, head_dim) and its log-sum-exp (batch, heads, queries).

    ``mask`` is added to the scores: 0 or -inf, in the dtype of ``query``. Every query has to see a
    key, or its row means nothing.
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )
        return out, lse
    return attend_plainly(query, key, value, scale, mask)


def attend_plainly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``attend`` spelled out: what every kernel has to equal."""
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores = scores + mask
    lse = torch.logsumexp(scores, -1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


def fold(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Queries (batch, tokens, heads, head_dim) with the heads of one group under each other.

    (batch, kv_heads, groups x tokens, head_dim): keys need not be repeated for their group.
    """
    batch, tokens, heads, dim = query.shape
    grouped = query.view(batch, tokens, kv_heads, heads // kv_heads, dim)
    return grouped.permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, dim)


def unfold(out: torch.Tensor, lse: torch.Tensor, tokens: int) -> Part:
    """Undo ``fold``: (batch, tokens, heads, head_dim) and (batch, tokens, heads)."""
    batch, kv_heads, _, dim = out.shape
    apart = out.reshape(batch, kv_heads, -1, tokens, dim).permute(0, 3, 1, 2, 4)
    sums = lse.reshape(batch, kv_heads, -1, tokens).permute(0, 3, 1, 2)
    return Part(apart.reshape(batch, tokens, -1, dim), sums.reshape(batch, tokens, -1))


def merge(first: Part, second: Part) -> Part:
    """Attention over both sets of keys."""
    lse = torch.logaddexp(first.lse, second.lse)
    weight = (first.lse - lse).exp()[..., None].to(first.out.dtype)
    other = (second.lse - lse).exp()[..., None].to(first.out.dtype)
    return Part(first.out * weight + second.out * other, lse)
