"""Weight matrices, and the numerics they are multiplied in.

========  ==============================  ==================================================
kind      weights, activations            for
========  ==============================  ==================================================
model     as loaded, as loaded            the reference
int8      int8 by output, int8 by token   CPUs with AMX or VNNI; GPUs before Hopper and Ada
fp8       e4m3 by output, e4m3 by token   Hopper, Ada and later GPUs
weights8  int8 by output, as loaded       cards that bfloat16 weights do not fit (8 GB): slower
========  ==============================  ==================================================

Both scales are symmetric: ``y = (x / sx) (w / sw) * sx * sw``, with ``s = max|.| / largest``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from worker.errors import ConfigurationError

Numerics = Literal["model", "int8", "fp8", "weights8"]

_FP8 = torch.float8_e4m3fn
_LARGEST = {torch.int8: 127.0, _FP8: 448.0}
_CUDA_ROWS = 16
"""CUDA's int8 product needs more rows than this (torch 2.13)."""
_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_TINY = 1e-12
"""Keeps the scale of an all-zero row above zero."""


class Matrix(NamedTuple):
    """(out, in) as loaded for ``model``; else (in, out), with a float32 scale for each output."""

    weight: torch.Tensor
    scale: torch.Tensor | None = None
    kind: Numerics = "model"


MakeMatrix = Callable[[torch.Tensor], Matrix]


def maker(kind: Numerics, device: torch.device) -> MakeMatrix:
    """How weights (out, in) become matrices of this kind.

    Raises:
        ConfigurationError: the device cannot multiply them.
    """
    if kind == "model":
        return Matrix
    if kind == "fp8" and not fp8_pays(device):
        raise ConfigurationError(
            "judge.numerics: fp8 needs a Hopper, Ada or later GPU; use int8 or model"
        )
    stored = _FP8 if kind == "fp8" else torch.int8

    def make(weight: torch.Tensor) -> Matrix:
        whole, scale = _quantised(weight.to(device), stored)
        # The kernels read the right-hand side by columns.
        return Matrix(whole.contiguous().t(), scale[:, 0].contiguous(), kind)

    return make


def fp8_pays(device: torch.device) -> bool:
    """Whether a device multiplies fp8 in hardware: others at best imitate it, slowly."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def multiply(rows: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """``rows`` (tokens, in) times the matrix: (tokens, out), in the format of ``rows``."""
    weight, scale, kind = matrix
    if kind == "model" or scale is None:
        if rows.dtype == torch.float32 and rows.device.type == "cpu" and _ONEDNN and len(rows) > 1:
            product: torch.Tensor = _product(rows, weight)
            return product
        return torch.nn.functional.linear(rows, weight)
    if kind == "weights8":
        return (rows @ weight.to(rows.dtype)) * scale.to(rows.dtype)
    if kind == "int8":
        whole, by_token = _quantised(rows, torch.int8)
        if rows.is_cuda and len(rows) <= _CUDA_ROWS:
            whole = torch.nn.functional.pad(whole, (0, 0, 0, _CUDA_ROWS + 1 - len(rows)))
        sums: torch.Tensor = torch._int_mm(whole, weight)[: len(rows)]
        return (sums.float() * (by_token * scale)).to(rows.dtype)
    whole, by_token = _quantised(rows, _FP8)
    narrow: torch.Tensor = torch._scaled_mm(
        whole, weight, scale_a=by_token, scale_b=scale[None], out_dtype=torch.bfloat16
    )
    return narrow.to(rows.dtype)


@torch.library.custom_op("moderation_worker::product", mutates_args=())
def _product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``linear`` in float32 by oneDNN: on CPUs with AVX-512 a tenth to a half faster than MKL,
    which torch 2.13 takes, but for a single row. An operator of its own: Inductor would have the
    weights be constants."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return product


@_product.register_fake
def _(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[0])


def _quantised(rows: torch.Tensor, stored: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in eight bits, and the scale of each (rows, 1) in float32."""
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=_TINY) / _LARGEST[stored]
    whole = wide / scale
    return (whole.round() if stored == torch.int8 else whole).to(stored), scale
