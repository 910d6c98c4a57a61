"""A packed batch's attention in one layer, in parts that are computed apart and merged exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch

from worker.judge.engine.batch import Group, Queries, Shared
from worker.judge.engine.kv_cache import LayerKV
from worker.judge.engine.model import Shape

# Attention in parts that are computed apart and merged exactly.
#
# Softmax over the union of two sets of keys follows from the softmax over each and its
# log-sum-exp ``l`` (the identity behind FlashAttention and Hydragen, arXiv 2402.05099)::
#
#     out = (e^l1 out1 + e^l2 out2) / (e^l1 + e^l2)
#
# So the queries of all events meet a policy's keys once, as one long matrix, and each event meets
# its own keys in a small batch.

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


# Attention to keys that all lie before their queries: a policy's, or what came before a piece.
#
# In a sliding layer a query sees those that are less than a window behind it, as positions count::
#
#     keys     first ........................ first + count
#     sees                  [ window ] ^ query: keys from its position - window + 1 on


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


class Cascade:
    """Attention of one set of queries, layer after layer; masks are made once and kept."""

    def __init__(self, queries: Queries, shape: Shape, dtype: torch.dtype) -> None:
        self._queries, self._shape, self._dtype = queries, shape, dtype
        self._own = [_added(group, shape, dtype) for group in queries.groups]
        self._near: dict[int, Near | None] = {}

    def __call__(
        self,
        number: int,
        sliding: bool,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> torch.Tensor:
        """(queries, heads x head_dim); ``key`` and ``value`` are those of all packed tokens."""
        own = Part(torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32))
        for place, group in enumerate(self._queries.groups):
            self._among(group, self._own[place][sliding], number, sliding, query, key, value, own)
        for shared in self._queries.shared:
            span = slice(shared.start, shared.end)
            behind = self._before(shared, number, sliding, query[span])
            if behind is not None:
                merged = merge(Part(own.out[span], own.lse[span]), behind)
                own.out[span], own.lse[span] = merged
        return own.out.flatten(1)

    def _among(
        self,
        group: Group,
        mask: torch.Tensor,
        number: int,
        sliding: bool,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        own: Part,
    ) -> None:
        """Rows of like length with their own keys; what they give is written into ``own``."""
        shape = self._shape
        asked = _rows(query, group.queries)
        out, lse = attend(
            fold(asked, shape.kv_heads),
            _rows(key, group.keys).transpose(1, 2),
            _rows(value, group.keys).transpose(1, 2),
            shape.scale,
            mask,
        )
        part = unfold(out, lse, asked.shape[1])
        for whole, padded in zip(own, part, strict=True):
            whole.index_copy_(0, group.places, padded.flatten(0, 1).index_select(0, group.real))

    def _before(
        self, shared: Shared, number: int, sliding: bool, query: torch.Tensor
    ) -> Part | None:
        """Queries with what was computed before them; None where no query sees any of it."""
        layer = shared.held.layers[number]
        seen: Near | None = ALL
        if sliding:
            if id(shared) not in self._near:  # every sliding layer holds the same positions
                positions = self._queries.positions[shared.start : shared.end]
                first, count = shared.held.first(number), layer[0].shape[1]
                self._near[id(shared)] = near(positions, first, count, self._shape, self._dtype)
            seen = self._near[id(shared)]
        return before(query, layer, seen, self._shape)


def _added(group: Group, shape: Shape, dtype: torch.dtype) -> dict[bool, torch.Tensor]:
    """A group's masks; both kinds of layers share one where the window bounds nothing."""
    full = added(group.seen[False], shape, dtype)
    same = group.seen[True] is group.seen[False]
    return {False: full, True: full if same else added(group.seen[True], shape, dtype)}


def _rows(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """``tensor[places]``; whole rows are copied several times faster so on a CPU (torch 2.13)."""
    return tensor.index_select(0, places.flatten()).view(*places.shape, *tensor.shape[1:])
