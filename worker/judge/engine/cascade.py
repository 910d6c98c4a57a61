"""A packed batch's attention in one layer: its policies' keys, its own, and what came before."""

from __future__ import annotations

import torch

from worker.judge.engine.attention import Part, attend, fold, merge, unfold
from worker.judge.engine.before import ALL, Near, added, before, near
from worker.judge.engine.packing import Group, Queries, Shared
from worker.judge.engine.weights import Shape


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
