"""One forward of the text model over packed rows: from token ids to logits where they are wanted.

What the plain model computes and nobody looks at is left out: padding, logits of tokens that are
not asked about (1.34 GFLOP each at the 4B shape), and in the last layer everything of those tokens
but their keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.judge.engine import model as blocks
from worker.judge.engine.attention import Cascade
from worker.judge.engine.batch import Packed, Row, pack
from worker.judge.engine.kv_cache import Joined, LayerKV, OwnKV
from worker.judge.engine.model import Layer, TextWeights


@dataclass(frozen=True)
class Forwarded:
    """Per row, in the caller's order: logits (wanted, vocabulary) in float32, keys and values.

    ``kept`` covers the rows' own ids, without branches; None where they were not to be kept.
    """

    logits: list[torch.Tensor]
    kept: list[OwnKV | None]


class Forward:
    """Runs packed rows through one set of weights. ``compiled`` fuses what lies between matrices.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, weights: TextWeights, *, compiled: bool = False) -> None:
        self.weights = weights
        self._before: Any = blocks.before
        self._after: Any = blocks.after
        if compiled:
            self._before = torch.compile(blocks.before, dynamic=True, fullgraph=True)
            self._after = torch.compile(blocks.after, dynamic=True, fullgraph=True)

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], *, keep: Sequence[bool] = ()) -> Forwarded:
        """Logits of every row's wanted tokens; keys and values of the rows marked in ``keep``."""
        weights, shape = self.weights, self.weights.shape
        packed = pack(rows, shape, weights.device)
        kept = dict(enumerate(keep))
        rotations = weights.rotations(packed.positions)
        everyone = Cascade(packed.all, shape, weights.dtype)
        layers: list[LayerKV] = []
        x = self._embedded(packed)
        for number, layer in enumerate(weights.layers):
            query, key, value = self.project(layer, x, rotations[layer.sliding])
            if any(kept.values()):
                layers.append((key, value))
            attention = everyone
            if number == shape.layers - 1:
                if not packed.wanted.numel():
                    break
                query, x = query[packed.wanted], x[packed.wanted]
                attention = Cascade(packed.last, shape, weights.dtype)
            attended = attention(number, layer.sliding, query, key, value)
            x = self.finish(layer, x, attended)
        logits = self.logits(x) if packed.wanted.numel() else x.new_empty(0, 0)
        return _apart(packed, logits, layers, kept)

    def project(
        self, layer: Layer, x: torch.Tensor, rotation: blocks.Rotation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``blocks.before`` of one layer."""
        norms, shape = layer.norms, self.weights.shape
        projected: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self._before(
            x, norms.attention_in, layer.qkv, norms.query, norms.key,
            rotation, shape.heads, shape.kv_heads, shape.eps,
        )  # fmt: skip
        return projected

    def finish(self, layer: Layer, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """``blocks.after`` of one layer."""
        norms = layer.norms
        finished: torch.Tensor = self._after(
            x, attended, layer.out, norms.attention_out, norms.mlp_in,
            layer.gate_up, layer.down, norms.mlp_out, self.weights.shape.eps,
        )  # fmt: skip
        return finished

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Final norm and head: (tokens, vocabulary) in float32."""
        final = blocks.normed(x, self.weights.final_norm, self.weights.shape.eps)
        logits: torch.Tensor = self.weights.head(final).float()
        return logits

    def _embedded(self, packed: Packed) -> torch.Tensor:
        ids = packed.ids
        if packed.pictures:
            ids = ids.clone()
            for start, picture in packed.pictures:  # their own ids may lie outside the vocabulary
                ids[start + picture.start : start + picture.end] = 0
        x: torch.Tensor = self.weights.embed(ids)
        for start, picture in packed.pictures:
            x[start + picture.start : start + picture.end] = picture.embedding.to(x)
        return x


def _apart(
    packed: Packed, logits: torch.Tensor, layers: list[LayerKV], keep: dict[int, bool]
) -> Forwarded:
    """What belongs to which row, in the caller's order."""
    found: list[torch.Tensor] = [logits] * len(packed.rows)
    kept: list[OwnKV | None] = [None] * len(packed.rows)
    start = 0
    for index, row, span in zip(packed.order, packed.rows, packed.spans, strict=True):
        found[index] = logits[start : start + len(row.wanted)]
        start += len(row.wanted)
        if keep.get(index):
            kept[index] = _kept(row, span, layers)
    return Forwarded(found, kept)


def _kept(row: Row, span: range, layers: list[LayerKV]) -> OwnKV:
    own = slice(span.start, span.start + len(row.ids))
    new = tuple((key[own].transpose(0, 1), value[own].transpose(0, 1)) for key, value in layers)
    if row.past is None:
        return OwnKV(row.prefix, row.ids, row.start, new)
    past = row.past
    return OwnKV(row.prefix, past.ids + row.ids, past.start, Joined(past.layers, new))
