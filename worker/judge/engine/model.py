"""The text model's weights, layer by layer, and the halves of a layer around its attention.

``x`` holds one row a token, packed: there is no padding here, so nothing is computed for it::

    q, k, v = before(x);   a = attention(q, k, v);   x' = after(x, a)

They take every weight as an argument, so one compiled graph serves all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.judge.engine.quantization import MakeMatrix, Matrix, multiply

# The text model's weights as the engine multiplies with them, layer by layer.
#
# Projections that read the same input are one matrix: ``qkv`` and ``gate_up``. In the model's own
# numerics its modules are re-pointed at slices of it, so fusing takes no memory and the plain model
# still works; in others they are emptied, and only the engine can run it.


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
    qkv: Matrix
    out: Matrix
    gate_up: Matrix
    down: Matrix


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

    def __init__(self, model: Any, make: MakeMatrix = Matrix) -> None:
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
        self.layers = [_layer(layer, make) for layer in text.layers]

    def rotations(self, positions: torch.Tensor) -> dict[bool, tuple[torch.Tensor, torch.Tensor]]:
        """Cosines and sines (tokens, head_dim) at ``positions``, for full and sliding layers."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        tables = {}
        for sliding in {layer.sliding for layer in self.layers}:
            kind = "sliding_attention" if sliding else "full_attention"
            cos, sin = self._rotary(like, positions[None], kind)
            tables[sliding] = (cos[0], sin[0])
        return tables


def _gain(norm: Any) -> torch.Tensor:
    gain: torch.Tensor = (1.0 + norm.weight.detach().float()).contiguous()
    return gain


def _layer(layer: Any, make: MakeMatrix) -> Layer:
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
        qkv=_matrix(make, attention.q_proj, attention.k_proj, attention.v_proj),
        out=_matrix(make, attention.o_proj),
        gate_up=_matrix(make, mlp.gate_proj, mlp.up_proj),
        down=_matrix(make, mlp.down_proj),
    )


def _matrix(make: MakeMatrix, *projections: nn.Linear) -> Matrix:
    """One matrix over all projections, whose weights become slices of it or empty."""
    weights = [projection.weight.detach() for projection in projections]
    whole = torch.cat(weights) if len(weights) > 1 else weights[0]
    matrix = make(whole)
    shared = matrix.weight.data_ptr() == whole.data_ptr()
    start = 0
    for projection, weight in zip(projections, weights, strict=True):
        end = start + weight.shape[0]
        slice_ = whole[start:end] if shared else whole.new_empty(0)
        projection.weight = nn.Parameter(slice_, requires_grad=False)
        start = end
    return matrix


Rotation = tuple[torch.Tensor, torch.Tensor]


def normed(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """Gemma's RMSNorm: computed and scaled in float32, then cast back."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * gain).type_as(x)


def rotated(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Rotary embedding of ``x`` (tokens, heads, head_dim)."""
    cos, sin = rotation[0][:, None], rotation[1][:, None]
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def before(
    x: torch.Tensor,
    gain: torch.Tensor,
    qkv: Matrix,
    query_gain: torch.Tensor,
    key_gain: torch.Tensor,
    rotation: Rotation,
    heads: int,
    kv_heads: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim)."""
    projected = multiply(normed(x, gain, eps), qkv)
    by_head = projected.view(x.shape[0], heads + 2 * kv_heads, -1)
    query, key, value = torch.split(by_head, [heads, kv_heads, kv_heads], 1)
    query = rotated(normed(query, query_gain, eps), rotation)
    key = rotated(normed(key, key_gain, eps), rotation)
    return query, key, value.contiguous()


def after(
    x: torch.Tensor,
    attended: torch.Tensor,
    out: Matrix,
    out_gain: torch.Tensor,
    mlp_gain: torch.Tensor,
    gate_up: Matrix,
    down: Matrix,
    mlp_out_gain: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """The residual stream behind the layer; ``attended`` is (tokens, heads x head_dim)."""
    x = x + normed(multiply(attended, out), out_gain, eps)
    gate, up = multiply(normed(x, mlp_gain, eps), gate_up).chunk(2, -1)
    hidden = torch.nn.functional.gelu(gate, approximate="tanh") * up
    return x + normed(multiply(hidden, down), mlp_out_gain, eps)
