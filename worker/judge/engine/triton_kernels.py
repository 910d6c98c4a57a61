"""The CUDA kernels, in Triton: attention over any varlen batch, and what lies between products.

Everything is computed in float32 and stored in the format of its output. Addresses and offsets are
64-bit: slots of a long lane pass two thousand million elements. What is a ``constexpr`` is compiled
for; sizes of a batch are not (``do_not_specialize``), so nothing is compiled after the start.
"""

from __future__ import annotations

import triton
import triton.language as tl

_SIZES = ["tokens", "queries", "window", "slot_rows"]


@triton.jit
def _attend_block(q, scores_max, total, acc, keys, values, seen, scale, VALUE: tl.constexpr):
    """One block of keys into the running softmax (online softmax, in powers of two)."""
    scores = tl.dot(q, keys, input_precision="ieee") * scale
    scores = tl.where(seen, scores, float("-inf"))
    new_max = tl.maximum(scores_max, tl.max(scores, 1))
    # A query that has seen nothing yet: anything but -inf, so that exp2 gives 0 and not NaN.
    base = tl.where(new_max == float("-inf"), 0.0, new_max)
    weights = tl.exp2(scores - base[:, None])
    fade = tl.exp2(scores_max - base)
    acc = acc * fade[:, None] + tl.dot(weights.to(VALUE), values, input_precision="ieee")
    total = total * fade + tl.sum(weights, 1)
    return new_max, total, acc


@triton.jit(do_not_specialize=_SIZES)
def attention(
    Q, K, V, OUT,
    q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head,
    BLOCK_ROW, BLOCK_FIRST,
    QUERY_START, QUERY_COUNT, QUERY_TOKEN,
    TOKEN_START, TOKEN_COUNT, MARKED,
    POSITION, BRANCH, IMAGE,
    SEGMENT_FIRST, SEGMENT_KEYS, SEGMENT_VALUES, SEGMENT_STRIDE, SEGMENT_HELD, SEGMENT_POSITION,
    scale, window,
    GROUPS: tl.constexpr, HEAD: tl.constexpr, HEAD_PADDED: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    SLIDING: tl.constexpr, MARKS: tl.constexpr,
):  # fmt: skip
    """A program is a block of queries of one sequence and one key/value head.

    The query heads of a group lie under each other in one tile, so keys are read once for all of
    them. The program walks the segments that were computed before its sequence (a policy, a kept
    image, a past, a slot) at their addresses, then the sequence's own keys::

        segments  P P P P P P | I I I        own  x x x x x x . . .
                  every key (of a sliding         up to the query; all of them where
                  layer: inside the window)       branches or images leave gaps

    ``scale`` holds the factor from e to 2. Blocks of row -1 are padding.
    """
    block, head = tl.program_id(0), tl.program_id(1)
    row = tl.load(BLOCK_ROW + block)
    if row < 0:
        return
    first_query = tl.load(BLOCK_FIRST + block)
    query_start = tl.load(QUERY_START + row)
    query_count = tl.load(QUERY_COUNT + row)
    token_start = tl.load(TOKEN_START + row)
    token_count = tl.load(TOKEN_COUNT + row)

    place = tl.arange(0, BLOCK_Q * GROUPS)
    query = first_query + place // GROUPS
    q_heads = (head * GROUPS + place % GROUPS).to(tl.int64)
    real = query < query_count
    at = (query_start + query).to(tl.int64)
    token = tl.load(QUERY_TOKEN + at, mask=real, other=0)
    column = tl.arange(0, HEAD_PADDED)
    inside = column < HEAD
    q = tl.load(
        Q + at[:, None] * q_token + q_heads[:, None] * q_head + column[None, :],
        mask=real[:, None] & inside[None, :],
        other=0.0,
    )
    position = tl.load(POSITION + token, mask=real, other=0)

    top = tl.full([BLOCK_Q * GROUPS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q * GROUPS], tl.float32)
    acc = tl.zeros([BLOCK_Q * GROUPS, HEAD_PADDED], tl.float32)
    n = tl.arange(0, BLOCK_K)

    for segment in range(tl.load(SEGMENT_FIRST + row), tl.load(SEGMENT_FIRST + row + 1)):
        keys_at = tl.load(SEGMENT_KEYS + segment).to(tl.pointer_type(K.dtype.element_ty))
        values_at = tl.load(SEGMENT_VALUES + segment).to(tl.pointer_type(V.dtype.element_ty))
        stride = tl.load(SEGMENT_STRIDE + segment)
        held = tl.load(SEGMENT_HELD + segment)
        began = tl.load(SEGMENT_POSITION + segment)
        start = 0
        if SLIDING:
            nearest = tl.min(tl.where(real, position, 2147483647), 0)
            start = tl.maximum(0, nearest - window + 1 - began) // BLOCK_K * BLOCK_K
        for j0 in range(start, held, BLOCK_K):
            j = j0 + n
            there = j < held
            rows = j.to(tl.int64) * stride + head.to(tl.int64) * HEAD
            keys = tl.load(
                keys_at + rows[None, :] + column[:, None],
                mask=there[None, :] & inside[:, None],
                other=0.0,
            )
            values = tl.load(
                values_at + rows[:, None] + column[None, :],
                mask=there[:, None] & inside[None, :],
                other=0.0,
            )
            seen = there[None, :] & real[:, None]
            if SLIDING:
                seen = seen & (position[:, None] - (began + j)[None, :] < window)
            top, total, acc = _attend_block(
                q, top, total, acc, keys, values, seen, scale, V.dtype.element_ty
            )

    own = token - token_start
    if MARKS:
        branch = tl.load(BRANCH + token, mask=real, other=0)
        image = tl.load(IMAGE + token, mask=real, other=0)
    end = tl.max(tl.where(real, own, 0), 0) + 1
    if MARKS:
        if tl.load(MARKED + row) > 0:
            end = token_count
    start = 0
    if SLIDING:
        # Places lie no further apart than positions but between branches, whose rows are marked.
        start = tl.maximum(0, tl.min(tl.where(real, own, 2147483647), 0) - window + 1)
        if MARKS:
            if tl.load(MARKED + row) > 0:
                start = start * 0
        start = start // BLOCK_K * BLOCK_K
    for j0 in range(start, end, BLOCK_K):
        j = j0 + n
        there = j < end
        rows = (token_start + j).to(tl.int64)
        keys = tl.load(
            K + rows[None, :] * k_token + head.to(tl.int64) * k_head + column[:, None],
            mask=there[None, :] & inside[:, None],
            other=0.0,
        )
        values = tl.load(
            V + rows[:, None] * v_token + head.to(tl.int64) * v_head + column[None, :],
            mask=there[:, None] & inside[None, :],
            other=0.0,
        )
        seen = j[None, :] <= own[:, None]
        if MARKS:
            key_branch = tl.load(BRANCH + rows, mask=there, other=0)
            key_image = tl.load(IMAGE + rows, mask=there, other=0)
            seen = seen & ((key_branch[None, :] == 0) | (key_branch[None, :] == branch[:, None]))
            seen = seen | ((image[:, None] > 0) & (image[:, None] == key_image[None, :]))
        if SLIDING:
            key_position = tl.load(POSITION + rows, mask=there, other=0)
            seen = seen & (position[:, None] - key_position[None, :] < window)
        seen = seen & there[None, :] & real[:, None]
        top, total, acc = _attend_block(
            q, top, total, acc, keys, values, seen, scale, V.dtype.element_ty
        )

    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(
        OUT + at[:, None] * out_token + q_heads[:, None] * out_head + column[None, :],
        acc.to(OUT.dtype.element_ty),
        mask=real[:, None] & inside[None, :],
    )


@triton.jit(do_not_specialize=_SIZES)
def add_norm(
    X, Y, GAIN_Y, GAIN_X, OUT, SCALE, tokens, eps,
    WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr, ROWS: tl.constexpr,
    ADD: tl.constexpr, EIGHT_BITS: tl.constexpr,
):  # fmt: skip
    """``x += norm(y) gain_y`` where ``ADD``; ``out = norm(x) gain_x``, in fp8 with the scale of
    each row where asked (see ``quantization``)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH_PADDED)
    there = (row < tokens)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    x = tl.load(X + at, mask=there, other=0.0).to(tl.float32)
    if ADD:
        y = tl.load(Y + at, mask=there, other=0.0).to(tl.float32)
        gain = tl.load(GAIN_Y + column, mask=column < WIDTH, other=0.0)
        x = x + y * tl.rsqrt(tl.sum(y * y, 1) / WIDTH + eps)[:, None] * gain[None, :]
        tl.store(X + at, x.to(X.dtype.element_ty), mask=there)
    gain = tl.load(GAIN_X + column, mask=column < WIDTH, other=0.0)
    out = x * tl.rsqrt(tl.sum(x * x, 1) / WIDTH + eps)[:, None] * gain[None, :]
    if EIGHT_BITS:
        scale = tl.maximum(tl.max(tl.abs(out), 1), 1e-12) / 448.0
        tl.store(SCALE + row, scale, mask=row < tokens)
        out = out / scale[:, None]
    tl.store(OUT + at, out.to(OUT.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_SIZES)
def norm_rotate(
    QKV, GAIN_Q, GAIN_K, COS, SIN, tokens, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD: tl.constexpr, HALF_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Norm and rotary embedding of queries and keys where the projection left them, a program a
    head; values stay as they are."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(1)
    half: tl.constexpr = HEAD // 2
    column = tl.arange(0, HALF_PADDED)
    inside = column < half
    there = (row < tokens)[:, None] & inside[None, :]
    low = row[:, None] * ((HEADS + 2 * KV_HEADS) * HEAD) + head * HEAD + column[None, :]
    high = low + half
    a = tl.load(QKV + low, mask=there, other=0.0).to(tl.float32)
    b = tl.load(QKV + high, mask=there, other=0.0).to(tl.float32)
    scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / HEAD + eps)[:, None]
    is_query = head < HEADS
    gain_low = tl.where(
        is_query,
        tl.load(GAIN_Q + column, mask=inside, other=0.0),
        tl.load(GAIN_K + column, mask=inside, other=0.0),
    )
    gain_high = tl.where(
        is_query,
        tl.load(GAIN_Q + half + column, mask=inside, other=0.0),
        tl.load(GAIN_K + half + column, mask=inside, other=0.0),
    )
    a = a * scale * gain_low[None, :]
    b = b * scale * gain_high[None, :]
    turn = row[:, None] * HEAD + column[None, :]
    cos_low = tl.load(COS + turn, mask=there, other=0.0).to(tl.float32)
    cos_high = tl.load(COS + turn + half, mask=there, other=0.0).to(tl.float32)
    sin_low = tl.load(SIN + turn, mask=there, other=0.0).to(tl.float32)
    sin_high = tl.load(SIN + turn + half, mask=there, other=0.0).to(tl.float32)
    tl.store(QKV + low, (a * cos_low - b * sin_low).to(QKV.dtype.element_ty), mask=there)
    tl.store(QKV + high, (b * cos_high + a * sin_high).to(QKV.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_SIZES)
def gelu_up(
    GATE_UP, OUT, SCALE, tokens,
    WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr, ROWS: tl.constexpr, EIGHT_BITS: tl.constexpr,
):  # fmt: skip
    """``gelu(gate) x up`` of the fused projection, with tanh; in fp8 where asked."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH_PADDED)
    there = (row < tokens)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * (2 * WIDTH) + column[None, :]
    gate = tl.load(GATE_UP + at, mask=there, other=0.0).to(tl.float32)
    up = tl.load(GATE_UP + at + WIDTH, mask=there, other=0.0).to(tl.float32)
    inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
    fade = tl.exp(-2.0 * tl.abs(inner))
    tanh = (1.0 - fade) / (1.0 + fade)
    out = 0.5 * gate * (1.0 + tl.where(inner < 0, -tanh, tanh)) * up
    if EIGHT_BITS:
        scale = tl.maximum(tl.max(tl.abs(out), 1), 1e-12) / 448.0
        tl.store(SCALE + row, scale, mask=row < tokens)
        out = out / scale[:, None]
    to = row[:, None] * WIDTH + column[None, :]
    tl.store(OUT + to, out.to(OUT.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_SIZES)
def quantize(
    X, OUT, SCALE, tokens,
    WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Rows in fp8, and the scale of each."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH_PADDED)
    there = (row < tokens)[:, None] & (column < WIDTH)[None, :]
    at = row[:, None] * WIDTH + column[None, :]
    x = tl.load(X + at, mask=there, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 1), 1e-12) / 448.0
    tl.store(SCALE + row, scale, mask=row < tokens)
    tl.store(OUT + at, (x / scale[:, None]).to(OUT.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=_SIZES)
def write_slots(
    K, V, SLOT_KEYS, SLOT_VALUES, SLOT, AT, tokens, slot_rows, k_token, v_token,
    WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """New keys and values (all heads of a token in one row) behind what their slots hold; a slot is
    ``slot_rows`` tokens."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH_PADDED)
    there = (row < tokens)[:, None] & (column < WIDTH)[None, :]
    slot = tl.load(SLOT + row, mask=row < tokens, other=0).to(tl.int64)
    at = tl.load(AT + row, mask=row < tokens, other=0).to(tl.int64)
    to = (slot * slot_rows + at)[:, None] * WIDTH + column[None, :]
    key = tl.load(K + row[:, None] * k_token + column[None, :], mask=there, other=0.0)
    tl.store(SLOT_KEYS + to, key, mask=there)
    value = tl.load(V + row[:, None] * v_token + column[None, :], mask=there, other=0.0)
    tl.store(SLOT_VALUES + to, value, mask=there)
