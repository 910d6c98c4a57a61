"""Linear layers, and the numerics their products are computed in.

======  ==============================  ==================================================
kind    weights, activations            for
======  ==============================  ==================================================
model   as loaded, as loaded            the reference
int8    int8 by output, int8 by token   CPUs with AMX or VNNI; GPUs before Hopper and Ada
fp8     e4m3 by output, e4m3 by token   Hopper, Ada and later GPUs
w8a16   int8 by output, as loaded       cards that bfloat16 weights do not fit (8 GB): slower
======  ==============================  ==================================================

Both scales are symmetric: ``y = (x / sx) (w / sw) * sx * sw``, with ``s = max|.| / largest``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from worker.errors import ConfigurationError

Numerics = Literal["model", "int8", "fp8", "w8a16"]

FP8 = torch.float8_e4m3fn
LARGEST = {torch.int8: 127.0, FP8: 448.0}
"""The largest number that each eight-bit format holds."""
_CUDA_ROWS = 16
"""CUDA's int8 product needs more rows than this (torch 2.13)."""
_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
TINY = 1e-12
"""Keeps the scale of an all-zero row above zero."""


class Linear(NamedTuple):
    """(out, in) as loaded for ``model``; else (in, out), with a float32 scale for each output.

    ``library`` and ``least_rows`` are what this device's product asks for.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None = None
    kind: Numerics = "model"
    library: Literal["torch", "onednn"] = "torch"
    least_rows: int = 0


MakeLinear = Callable[[torch.Tensor], Linear]


def quantizer(kind: Numerics, device: torch.device, dtype: torch.dtype) -> MakeLinear:
    """How weights (out, in) become linear layers of this kind on a device."""
    if kind == "model":
        onednn = device.type == "cpu" and dtype == torch.float32 and _ONEDNN
        return lambda weight: Linear(weight, library="onednn" if onednn else "torch")
    stored = FP8 if kind == "fp8" else torch.int8
    least_rows = _CUDA_ROWS + 1 if kind == "int8" and device.type == "cuda" else 0

    def make(weight: torch.Tensor) -> Linear:
        whole, scale = quantized(weight.to(device), stored)
        # The kernels read the right-hand side by columns.
        return Linear(whole.contiguous().t(), scale[:, 0].contiguous(), kind, least_rows=least_rows)

    return make


def refuse_unsupported(kind: Numerics, device: torch.device) -> None:
    """Refuse numerics that a device cannot multiply in.

    Raises:
        ConfigurationError: with what it can.
    """
    if kind == "fp8" and not fp8_pays(device):
        raise ConfigurationError(
            "judge.numerics: fp8 needs a Hopper, Ada or later GPU; use int8 or model"
        )


def fp8_pays(device: torch.device) -> bool:
    """Whether a device multiplies fp8 in hardware: others at best imitate it, slowly."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def product(rows: torch.Tensor, linear: Linear) -> torch.Tensor:
    """``rows`` (tokens, in) through the layer: (tokens, out), in the format of ``rows``."""
    weight, scale, kind = linear.weight, linear.scale, linear.kind
    if kind == "model" or scale is None:
        if linear.library == "onednn" and len(rows) > 1:
            by_onednn: torch.Tensor = _onednn_product(rows, weight)
            return by_onednn
        return torch.nn.functional.linear(rows, weight)
    if kind == "w8a16":
        return (rows @ weight.to(rows.dtype)) * scale.to(rows.dtype)
    if kind == "int8":
        whole, by_token = quantized(rows, torch.int8)
        if len(rows) < linear.least_rows:
            whole = torch.nn.functional.pad(whole, (0, 0, 0, linear.least_rows - len(rows)))
        sums: torch.Tensor = torch._int_mm(whole, weight)[: len(rows)]
        return (sums.float() * (by_token * scale)).to(rows.dtype)
    whole, by_token = quantized(rows, FP8)
    return fp8_product(whole, by_token, linear).to(rows.dtype)


def fp8_product(rows: torch.Tensor, scales: torch.Tensor, linear: Linear) -> torch.Tensor:
    """Rows that are in fp8 already, with the scale of each (tokens, 1): (tokens, out) in
    bfloat16."""
    assert linear.scale is not None
    narrow: torch.Tensor = torch._scaled_mm(
        rows, linear.weight, scale_a=scales, scale_b=linear.scale[None], out_dtype=torch.bfloat16
    )
    return narrow


@torch.library.custom_op("moderation_worker::product", mutates_args=())
def _onednn_product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``linear`` in float32 by oneDNN: on CPUs with AVX-512 a tenth to a half faster than MKL,
    which torch 2.13 takes, but for a single row. An operator of its own: Inductor would have the
    weights be constants."""
    computed: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return computed


@_onednn_product.register_fake
def _(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[0])


def quantized(rows: torch.Tensor, stored: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in eight bits, and the scale of each (rows, 1) in float32."""
    wide = rows.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=TINY) / LARGEST[stored]
    whole = wide / scale
    return (whole.round() if stored == torch.int8 else whole).to(stored), scale
