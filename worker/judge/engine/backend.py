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

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch

from worker.errors import ConfigurationError
from worker.judge.engine.batch import VarlenBatch
from worker.judge.engine.kv_cache import KVSegment, KVSlots, LayerKV
from worker.judge.engine.model import Layer, TextWeights

logger = logging.getLogger(__name__)

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


def choose(asked: Attention, device: torch.device) -> BackendName:
    """The backend of ``judge.attention`` on a device, the one place where devices differ.

    Raises:
        ConfigurationError: it does not run there.
    """
    if asked == "auto":
        if device.type == "cpu":
            return "cpu"
        if device.type == "cuda" and triton_there():
            return "triton"
        logger.warning(
            "Triton is not installed: attention runs as plain matrix products, several times "
            "slower; install the torch wheel for CUDA, which brings it"
        )
        return "reference"
    if asked == "cpu" and device.type != "cpu":
        raise ConfigurationError(
            f"judge.attention: cpu does not run on {device.type}; use auto, triton or reference"
        )
    if asked == "triton":
        if device.type != "cuda":
            raise ConfigurationError(
                f"judge.attention: triton does not run on {device.type}; use auto, cpu or reference"
            )
        if not triton_there():
            raise ConfigurationError(
                "judge.attention: triton is not installed; install the torch wheel for CUDA, which "
                "brings it, or use auto"
            )
    return asked


def triton_there() -> bool:
    """Whether Triton can be imported; wheels of torch for CPUs alone come without it."""
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # blocked: its place in sys.modules holds None
        return False


def make(name: BackendName, weights: TextWeights, *, compiled: bool = False) -> Backend:
    """A backend over weights. ``compiled`` fuses what lies between products with torch.compile,
    where the backend has no kernels of its own for it."""
    # Imported here: the backends are built on this protocol, and Triton may not be there.
    if name == "triton":
        from worker.judge.engine.triton_backend import TritonBackend

        if compiled:
            logger.warning("judge.compile is ignored: the Triton backend has fused kernels")
        return TritonBackend(weights)
    from worker.judge.engine.torch_backend import TorchBackend, cpu_flash, matrix_products

    kernel = cpu_flash if name == "cpu" else matrix_products
    return TorchBackend(name, weights, kernel, compiled=compiled)
