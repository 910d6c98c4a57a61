"""The learning rate over a training stage."""

from __future__ import annotations

import math


def schedule(step: int, steps: int, warm_up: int) -> float:
    """Share of the full learning rate: a linear warm-up, then a cosine down to 5 %."""
    if step < warm_up:
        return (step + 1) / warm_up
    share = (step - warm_up) / max(1, steps - warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))
