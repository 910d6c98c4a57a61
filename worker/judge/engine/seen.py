"""Who sees whom among the own tokens of rows in one padded call: (rows, queries, keys) of bool.

::

    text            two branches      an image
    x . . . .       x . . . .         x . . . .
    x x . . .       x a . . .         x i i . .
    x x x . .       x a a . .         x i i . .
    x x x x .       x . . b .         x x x x .

Rows of text alone share one mask. Made on the device: the host only says where branches lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from worker.judge.engine.packing import Row


def own_tokens(
    rows: Sequence[Row], width: int, window: int, device: torch.device
) -> dict[bool, torch.Tensor]:
    """By kind of layer (sliding or not), (rows or 1, width, width).

    Padding stands behind everything real, so nothing real sees it; what it sees is never looked at.
    """
    index = torch.arange(width, device=device)
    full = (index[:, None] >= index[None, :])[None]
    if any(row.branches or row.picture for row in rows):
        full = full.repeat(len(rows), 1, 1)
    for place, row in enumerate(rows):
        for start, end in _branches(row):
            full[place, end:, start:end] = False
        if row.picture is not None:  # its tokens see each other both ways
            block = slice(row.picture.start, row.picture.end)
            full[place, block, block] = True
    if width <= window:
        return {False: full, True: full}
    near = full & (index[:, None] - index[None, :] < window)
    for place, row in enumerate(rows):
        for start, end in _branches(row):
            # Positions, not places: every branch begins again behind the row's own tokens.
            back = index[: end - start, None] + len(row.ids) - index[None, : len(row.ids)]
            own = full[place, start:end]
            near[place, start:end] = own
            near[place, start:end, : len(row.ids)] &= back < window
    return {False: full, True: near}


def _branches(row: Row) -> list[tuple[int, int]]:
    spans, start = [], len(row.ids)
    for branch in row.branches:
        spans.append((start, start + len(branch)))
        start += len(branch)
    return spans
