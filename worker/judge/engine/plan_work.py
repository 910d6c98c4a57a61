"""Bytes that one forward takes beside weights: each is the most that is alive at one moment.

Read off the engine line by line, for the eager one (a compiled one takes less). Sums over tensors
that are alive together are written in elements a token, so ``h`` is the residual stream, ``q`` all
query heads, ``k`` all key heads, ``m`` the MLP. Rows are padded inside attention only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.judge.engine.plan_sizes import FLOAT32, Body, Sizes, kv_bytes

PADDING = 1 / 0.7
"""Rows go into one attention call where the shorter has 0.7 of the longer one's tokens."""
ASKED = 16
"""Tokens of an event whose logits are read: its answer's constant text, both branches."""
ANSWER = 128
"""Tokens that an answer may take where it is written out."""
GUESSED = 64
"""Tokens of what is likely to follow, computed with each step of a row that is written on."""
SLACK = 64
"""Tokens that sliding layers keep beyond their window, and by which slots grow."""
PIECE = 2048
"""Tokens of a policy computed in one forward."""
SCORE = 3 * FLOAT32
"""Bytes a score takes where attention is spelled out: the scores, their difference, its exp."""
INDEX = 8

Kernel = Literal["tiled", "plain"]
"""``tiled`` attention never holds its scores, ``plain`` holds all of one call."""
KERNELS: dict[str, Kernel] = {"cpu": "tiled", "cuda": "plain"}
"""What ``attention.attend`` runs on each kind of device."""


@dataclass(frozen=True)
class Batch:
    """One packed forward: ``rows`` events with ``tokens`` in all, the longest has ``longest``.

    ``policy`` is the longest prefix in front of them, ``past`` what was computed of a row before.
    """

    rows: int
    tokens: int
    longest: int
    policy: int = 0
    past: int = 0
    host: bool = False


def forward(sizes: Sizes, batch: Batch, element: int, body: Body, kernel: Kernel) -> int:
    """A batch's layers: the residual stream, what one layer makes of it, masks, kept keys."""
    per_token = _layer(sizes, element, body)
    steady = batch.tokens * (per_token + _rotations(sizes, element)) + _matrix(sizes, element, body)
    steady += _masks(sizes, batch, element) + _scores(sizes, batch, kernel)
    packing = 18 * _pairs(batch) if batch.host else 0
    return kv_bytes(sizes, batch.tokens, element) + max(steady, packing)


def logits(sizes: Sizes, batch: Batch, element: int) -> int:
    """Behind the layers: logits of all that is asked, float32 beside the format they came in."""
    converted = element if element < FLOAT32 else 0
    everyone = batch.rows * ASKED * sizes.vocabulary * (FLOAT32 + converted)
    one = ASKED * sizes.vocabulary * (3 * FLOAT32 + 2)
    return kv_bytes(sizes, batch.tokens, element) + everyone + one


def naming(sizes: Sizes, batch: Batch, element: int, body: Body) -> int:
    """Every row goes on from its keys, copied into slots: categories, or an answer written out."""
    slots = batch.tokens + batch.rows * (ANSWER + GUESSED + SLACK)
    new = batch.rows * (ASKED + GUESSED)
    read = batch.rows * ASKED * sizes.vocabulary * (FLOAT32 + element)
    step = batch.rows * sizes.vocabulary * (5 * FLOAT32 + element)
    step += new * (_layer(sizes, element, body) + sizes.hidden * element)
    return kv_bytes(sizes, batch.tokens, element) + kv_bytes(sizes, slots, element) + read + step


def prefix(sizes: Sizes, tokens: int, element: int, body: Body, kernel: Kernel, host: bool) -> int:
    """Computing a policy: piece after piece, its keys once more while a piece joins them."""
    piece = min(tokens, PIECE)
    batch = Batch(1, piece, piece, past=tokens - piece, host=host)
    return 2 * kv_bytes(sizes, tokens, element) + forward(sizes, batch, element, body, kernel)


def vision(sizes: Sizes, images: int, element: int) -> int:
    """The vision tower over a batch of images, and the embeddings that come out of it."""
    tower = sizes.vision
    per_patch = max(9 * tower.hidden, 4 * tower.hidden + 2 * tower.mlp)
    pixels = 3 * tower.image * tower.image
    each = tower.patches * per_patch + pixels + 2 * tower.soft * sizes.hidden
    return images * each * element


def _layer(sizes: Sizes, element: int, body: Body) -> int:
    """The widest moment of a layer, for one token."""
    return max(_before(sizes, element), _attention(sizes, element), _after(sizes, element, body))


def _before(sizes: Sizes, element: int) -> int:
    """x, its norm, qkv, queries and keys normed and turned; the last layer's q and attended."""
    h, q, k = sizes.hidden, sizes.query, sizes.key
    return (2 * h + 8 * q + 4 * k) * element + 3 * FLOAT32 * max(h, q)


def _attention(sizes: Sizes, element: int) -> int:
    """x, q, what was attended; padded: q folded, attended, unfolded, gathered; keys gathered."""
    h, q, k = sizes.hidden, sizes.query, sizes.key
    return int((h + 4 * q + PADDING * (6 * q + 2 * k)) * element) + 8 * sizes.heads * FLOAT32


def _after(sizes: Sizes, element: int, body: Body) -> int:
    """x before and after attention, q, attended; gate and up, gelu, their product, or down.

    ``int8`` has gate and up four times in 32 bits: sums, floats, scales, product; ``fp8`` has the
    product three times in float32 while its scale is found.
    """
    h, q, m = sizes.hidden, sizes.query, sizes.mlp
    widest = max(4 * m * element, (3 * m + h) * element + 3 * FLOAT32 * h)
    if body == "int8":
        widest = max(widest, 4 * FLOAT32 * 2 * m + h)
    elif body == "fp8":
        widest = max(widest, (3 * m + h) * element + 3 * FLOAT32 * m)
    return (3 * h + 2 * q) * element + widest


def _rotations(sizes: Sizes, element: int) -> int:
    """Cosines and sines of both kinds of layers, and the indexes of a token."""
    return 4 * sizes.head_dim * element + 3 * sizes.head_dim * FLOAT32 + 8 * INDEX


def _matrix(sizes: Sizes, element: int, body: Body) -> int:
    """An eight-bit matrix widened to the model's format, where activations are not quantised."""
    if body != "weights8":
        return 0
    return max(out * wide for out, wide in sizes.matrices) * element


def _pairs(batch: Batch) -> int:
    """Pairs of tokens of the same row, padding counted."""
    return int(batch.tokens * min(batch.longest, batch.tokens) * PADDING)


def _masks(sizes: Sizes, batch: Batch, element: int) -> int:
    """Who sees whom among a row's own tokens, for both kinds of layers; the window before them."""
    asked = batch.rows * ASKED * batch.longest
    own = (_pairs(batch) + asked) * (2 + (2 * sizes.groups + 1) * element + 1)
    before = max(batch.policy, batch.past)
    near = min(before, sizes.window + SLACK)
    if not near or before + batch.longest <= sizes.window:
        return own
    return own + batch.tokens * near * ((sizes.groups + 1) * element + INDEX + 2)


def _scores(sizes: Sizes, batch: Batch, kernel: Kernel) -> int:
    """The largest attention call's scores, where the kernel holds them."""
    if kernel == "tiled":
        return 0
    before = max(batch.tokens * batch.policy, batch.longest * batch.past)
    return max(_pairs(batch), before) * sizes.heads * SCORE
