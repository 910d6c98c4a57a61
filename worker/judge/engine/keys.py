"""Keys and values that were computed once: of a policy's prefix, and of one event's own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

LayerKV = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, (kv_heads, tokens, head_dim) each; keys are rotated already."""


@dataclass(frozen=True, eq=False)
class PrefixKV:
    """A policy's prefix. Sliding layers hold its last ``window - 1`` tokens: no later token sees
    more of it. Never written to."""

    ids: tuple[int, ...]
    layers: tuple[LayerKV, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bytes(self) -> int:
        return size(self.layers)

    @property
    def finite(self) -> bool:
        """Whether it is worth keeping: what is no number anywhere is none in the last layer."""
        return bool(torch.isfinite(self.layers[-1][1]).all())

    def first(self, layer: int) -> int:
        """Position of the first token that this layer holds."""
        return len(self.ids) - self.layers[layer][0].shape[1]


@dataclass(frozen=True, eq=False)
class OwnKV:
    """An event's own tokens behind its prefix; ``start`` is the position of the first.

    Sliding layers may hold fewer: the last ones that a later token can see.
    """

    prefix: PrefixKV | None
    ids: tuple[int, ...]
    start: int
    layers: tuple[LayerKV, ...]

    @property
    def end(self) -> int:
        """Position behind the last token."""
        return self.start + len(self.ids)

    @property
    def bytes(self) -> int:
        return size(self.layers)

    def first(self, layer: int) -> int:
        """Position of the first token that this layer holds."""
        return self.end - self.layers[layer][0].shape[1]

    def cut(self, length: int, window: int) -> OwnKV | None:
        """The first ``length`` own tokens; None where a sliding layer has dropped what the next
        token would see."""
        gone = len(self.ids) - length
        if gone <= 0:
            return self
        held = [key.shape[1] - gone for key, _ in self.layers]
        if min(held) < min(length, window - 1):
            return None
        layers = tuple(
            (key[:, :count], value[:, :count])
            for (key, value), count in zip(self.layers, held, strict=True)
        )
        return OwnKV(self.prefix, self.ids[:length], self.start, layers)


def size(layers: Sequence[LayerKV]) -> int:
    """Bytes of keys and values."""
    return sum(key.nbytes + value.nbytes for key, value in layers)


def windowed(layers: Sequence[LayerKV], sliding: Sequence[bool], most: int) -> list[LayerKV]:
    """The same, with sliding layers cut to their last ``most`` tokens (copied, so the rest is
    freed)."""
    return [
        (key[:, -most:].clone(), value[:, -most:].clone())
        if slides and key.shape[1] > most
        else (key, value)
        for (key, value), slides in zip(layers, sliding, strict=True)
    ]
