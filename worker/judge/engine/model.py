"""The text model's weights as the engine multiplies with them, layer by layer.

Projections that read the same input are one matrix: ``qkv`` and ``gate_up``. In the model's own
numerics its modules are re-pointed at slices of it, so fusing takes no memory and the plain model
still works; in others they are emptied, and only the engine can run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.judge.engine.quantization import Linear, MakeLinear, quantizer


@dataclass(frozen=True)
class Norms:
    """RMSNorm gains of one layer, ``1 + weight`` in float32 as Gemma 3 multiplies them."""

    attention_in: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    attention_out: torch.Tensor
    mlp_in: torch.Tensor
    mlp_out: torch.Tensor


@dataclass(frozen=True)
class Layer:
    """One decoder layer. ``sliding`` layers see the last ``Shape.window`` positions only."""

    sliding: bool
    norms: Norms
    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear

    @property
    def linears(self) -> tuple[Linear, ...]:
        return self.qkv, self.out, self.gate_up, self.down


@dataclass(frozen=True)
class Shape:
    """Sizes of the text model that the engine's tensors are made of."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    scale: float
    eps: float

    @property
    def groups(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads

    def kv_bytes(self, element: int) -> int:
        """Bytes of keys and values of one token in one layer."""
        return 2 * self.kv_heads * self.head_dim * element


class TextWeights:
    """A loaded Gemma 3's text model, ready for the engine (see above for what becomes of it)."""

    def __init__(self, model: Any, make: MakeLinear | None = None) -> None:
        text = model.model.language_model
        config = text.config
        self.shape = Shape(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            window=config.sliding_window,
            scale=config.query_pre_attn_scalar**-0.5,
            eps=config.rms_norm_eps,
        )
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.embed: nn.Module = text.embed_tokens
        self.head: nn.Module = model.lm_head
        self.final_norm = _gain(text.norm)
        self._rotary = text.rotary_emb
        make = make or quantizer("model", self.device, self.dtype)
        self.layers = [_layer(layer, make) for layer in text.layers]
        self.sliding = [layer.sliding for layer in self.layers]

    def gain_behind(self, layer: int) -> torch.Tensor:
        """Of the norm behind a layer: in front of the next, or the final one."""
        if layer + 1 == len(self.layers):
            return self.final_norm
        return self.layers[layer + 1].norms.attention_in

    def rotations(self, positions: torch.Tensor) -> dict[bool, tuple[torch.Tensor, torch.Tensor]]:
        """Cosines and sines (tokens, head_dim) at ``positions``, for full and sliding layers."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        tables = {}
        for sliding in set(self.sliding):
            kind = "sliding_attention" if sliding else "full_attention"
            cos, sin = self._rotary(like, positions[None], kind)
            tables[sliding] = (cos[0], sin[0])
        return tables


def _gain(norm: Any) -> torch.Tensor:
    gain: torch.Tensor = (1.0 + norm.weight.detach().float()).contiguous()
    return gain


def _layer(layer: Any, make: MakeLinear) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        sliding=attention.is_sliding,
        norms=Norms(
            attention_in=_gain(layer.input_layernorm),
            query=_gain(attention.q_norm),
            key=_gain(attention.k_norm),
            attention_out=_gain(layer.post_attention_layernorm),
            mlp_in=_gain(layer.pre_feedforward_layernorm),
            mlp_out=_gain(layer.post_feedforward_layernorm),
        ),
        qkv=_linear(make, attention.q_proj, attention.k_proj, attention.v_proj),
        out=_linear(make, attention.o_proj),
        gate_up=_linear(make, mlp.gate_proj, mlp.up_proj),
        down=_linear(make, mlp.down_proj),
    )


def _linear(make: MakeLinear, *projections: nn.Linear) -> Linear:
    """One product over all projections, whose weights become slices of it or empty."""
    weights = [projection.weight.detach() for projection in projections]
    whole = torch.cat(weights) if len(weights) > 1 else weights[0]
    linear = make(whole)
    shared = linear.weight is whole
    start = 0
    for projection, weight in zip(projections, weights, strict=True):
        end = start + weight.shape[0]
        slice_ = whole[start:end] if shared else whole.new_empty(0)
        projection.weight = nn.Parameter(slice_, requires_grad=False)
        start = end
    return linear
