"""The two halves of a decoder layer around its attention, as pure functions of tensors.

``x`` holds one row a token, packed: there is no padding here, so nothing is computed for it::

    q, k, v = before(x);   a = attention(q, k, v);   x' = after(x, a)

They take every weight as an argument, so one compiled graph serves all layers.
"""

from __future__ import annotations

import torch

from worker.judge.engine.matrix import Matrix, multiply

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
