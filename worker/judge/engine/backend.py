"""The seam between the engine and the device: attention, KV memory, what lies between products.

A forward asks its backend in two phases::

    plan = backend.plan(batch)                    once, on the host: nothing waits for the device,
                                                  so the next batch is laid out while one computes
    backend.attend(plan, layer, q, k, v, out)     once a layer, on the device

and never learns how keys and values are stored: those that outlive the forward are handles
(``kv_cache``). What lies between two products is fused as far as the device can::

    h = norm(x)                                   in front of the first layer
    q, k, v = project(layer, h)                   product, norms of heads, rotation
    x, h = finish(layer, x, attended)             product, norm, residual, norm, MLP, norm,
                                                  residual, and the norm in front of the next layer

``h`` is the backend's own: in fp8 it is eight bits and their scales already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch

from worker.judge.engine.batch import VarlenBatch
from worker.judge.engine.kv_cache import KVSegment, KVSlots, LayerKV
from worker.judge.engine.model import Layer

Attention = Literal["auto", "triton", "reference", "cpu"]
BackendName = Literal["triton", "reference", "cpu"]

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines (tokens, head_dim)."""


class Plan(Protocol):
    """One batch, laid out for a backend. It holds on to everything the batch reads."""

    @property
    def batch(self) -> VarlenBatch: ...

    @property
    def ids(self) -> torch.Tensor:
        """Token ids on the device; those of images are 0."""
        ...

    @property
    def positions(self) -> torch.Tensor:
        """Position of every token, on the device."""
        ...

    @property
    def wanted(self) -> torch.Tensor:
        """Packed indexes of all wanted tokens, on the device."""
        ...


class Backend(Protocol):
    """One way to compute on one kind of device, over one set of weights.

    Not thread-safe: it belongs to the device thread.
    """

    name: BackendName

    def plan(self, batch: VarlenBatch) -> Any:
        """Lay a batch out; the host's work alone, the device is not waited for."""
        ...

    def attend(
        self,
        plan: Any,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Attention of ``query`` (queries, heads, head_dim) into ``out`` of its shape.

        ``key`` and ``value`` (tokens, kv_heads, head_dim) are those of all packed tokens. The
        queries are all tokens, in the last layer the wanted ones alone. Of a batch in slots, keys
        and values are written behind what the slots hold.
        """
        ...

    def segment(self, layers: Sequence[LayerKV], start: int, end: int) -> KVSegment:
        """Keys and values of tokens ``start:end`` of a batch, layer by layer as ``project`` made
        them; not copied."""
        ...

    def slots(self, least: int = 0) -> KVSlots:
        """Empty slots; room for ``least`` of them is made with the first."""
        ...

    def norm(self, x: torch.Tensor, layer: int) -> Any:
        """``h`` in front of a layer."""
        ...

    def project(
        self, layer: Layer, h: Any, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim)."""
        ...

    def finish(
        self, layer: int, x: torch.Tensor, attended: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        """The residual stream behind a layer and ``h`` in front of the next; behind the last one
        ``h`` is the final norm's, in the model's format. ``attended`` is (tokens, heads x
        head_dim)."""
        ...
