"""Keys and values that were computed once: of a policy's prefix, and of one event's own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch

LayerKV = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, (kv_heads, tokens, head_dim) each; keys are rotated already."""


class Joined(Sequence[LayerKV]):
    """Layers of a past and of what came behind it, joined where one is looked at: most events that
    begin behind something known are safe, and nothing goes on from them."""

    def __init__(self, past: Sequence[LayerKV], new: Sequence[LayerKV]) -> None:
        self._past, self._new = past, new

    def __len__(self) -> int:
        return len(self._new)

    @overload
    def __getitem__(self, number: int) -> LayerKV: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[LayerKV]: ...
    def __getitem__(self, number: int | slice) -> LayerKV | Sequence[LayerKV]:
        if isinstance(number, slice):
            return Joined(self._past[number], self._new[number])
        (key, value), (more_key, more_value) = self._past[number], self._new[number]
        return torch.cat((key, more_key), 1), torch.cat((value, more_value), 1)


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
        return finite(self.layers[-1])

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
    layers: Sequence[LayerKV]

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


def finite(layer: LayerKV) -> bool:
    """Whether keys and values are numbers."""
    return all(bool(torch.isfinite(each).all()) for each in layer)


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
