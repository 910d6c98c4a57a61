"""A packed batch's attention in one layer: its policies' keys, its own, and what came before."""

from __future__ import annotations

import torch

from worker.judge.engine.attention import BLIND, Part, attend, fold, merge, unfold
from worker.judge.engine.keys import LayerKV
from worker.judge.engine.packing import Group, Queries, Shared
from worker.judge.engine.weights import Shape


class Cascade:
    """Attention of one set of queries, layer after layer; masks are made once and kept."""

    def __init__(self, queries: Queries, shape: Shape, dtype: torch.dtype) -> None:
        self._queries, self._shape, self._dtype = queries, shape, dtype
        self._own = [
            {kind: self._added(seen) for kind, seen in group.seen.items()}
            for group in queries.groups
        ]
        self._near: dict[int, tuple[torch.Tensor | None, torch.Tensor | None]] = {}

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
            behind = self._policy(shared, number, sliding, query[span])
            if behind is not None:
                merged = merge(Part(own.out[span], own.lse[span]), behind)
                own.out[span] = merged.out
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
        asked = query[group.queries]
        out, lse = attend(
            fold(asked, shape.kv_heads),
            key[group.keys].transpose(1, 2),
            value[group.keys].transpose(1, 2),
            shape.scale,
            mask,
        )
        part = unfold(out, lse, asked.shape[1])
        if group.past is not None:
            positions = self._queries.positions[group.queries[0]]
            seen = (group.past.layers[number], group.past.first(number))
            before = self._before(*seen, sliding, asked[0], positions, group)
            if before is not None:
                merged = merge(Part(part.out[0], part.lse[0]), before)
                part = Part(merged.out[None], merged.lse[None])
        places = group.queries[group.real]
        own.out[places] = part.out[group.real]
        own.lse[places] = part.lse[group.real]

    def _policy(
        self, shared: Shared, number: int, sliding: bool, query: torch.Tensor
    ) -> Part | None:
        positions = self._queries.positions[shared.start : shared.end]
        prefix = shared.prefix
        return self._before(
            prefix.layers[number], prefix.first(number), sliding, query, positions, shared
        )

    def _before(
        self,
        layer: LayerKV,
        first: int,
        sliding: bool,
        query: torch.Tensor,
        positions: torch.Tensor,
        whose: Shared | Group,
    ) -> Part | None:
        """Queries with keys that all lie before them; None where no query sees any."""
        key, value = layer
        count = key.shape[1]
        if count == 0:
            return None
        mask, blind = None, None
        if sliding:
            if id(whose) not in self._near:  # every sliding layer holds the same positions
                self._near[id(whose)] = self._window(positions, first, count)
            mask, blind = self._near[id(whose)]
            if blind is not None and bool(blind.all()):
                return None
        out, lse = attend(
            fold(query[None], self._shape.kv_heads), key[None], value[None], self._shape.scale, mask
        )
        part = unfold(out, lse, query.shape[0])
        out, lse = part.out[0], part.lse[0]
        if blind is not None:
            lse = lse.masked_fill(blind[:, None], BLIND)
            out = out.masked_fill(blind[:, None, None], 0.0)
        return Part(out, lse)

    def _window(
        self, positions: torch.Tensor, first: int, count: int
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The mask of a sliding layer over ``count`` keys from position ``first`` on, and the
        queries that see none of them; both None where every query sees all of them."""
        if int(positions.max()) - first < self._shape.window:
            return None, None
        keys = torch.arange(first, first + count, device=positions.device)
        seen = positions[:, None] - keys[None, :] < self._shape.window
        blind = ~seen.any(1)
        return self._added((seen | blind[:, None])[None]), blind

    def _added(self, seen: torch.Tensor) -> torch.Tensor:
        """(rows, queries, keys) of bool as what is added to folded scores."""
        mask = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        mask.masked_fill_(~seen, BLIND)
        return mask.repeat(1, self._shape.groups, 1)[:, None]
