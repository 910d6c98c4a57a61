"""One weight matrix in the numerics it is multiplied in."""

from __future__ import annotations

import torch

Matrix = tuple[torch.Tensor, ...]
"""``(weight,)``, (out, in), in the model's own format, or what ``numerics`` makes of it."""


def dense(weight: torch.Tensor) -> Matrix:
    """A matrix in the format the checkpoint was loaded in."""
    return (weight,)


def multiply(rows: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """``rows`` (tokens, in) times the matrix: (tokens, out)."""
    return torch.nn.functional.linear(rows, matrix[0])
