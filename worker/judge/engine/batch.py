"""The varlen batch: which tokens go through the model together, and which keys each may see.

::

    text            two branches      an image
    x . . . .       x . . . .         x . . . .
    x x . . .       x a . . .         x i i . .
    x x x . .       x a a . .         x i i . .
    x x x x .       x . . b .         x x x x .

Rows of text alone share one mask. Made on the device: the host only says where branches lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from worker.judge.engine.kv_cache import OwnKV, PrefixKV
from worker.judge.engine.model import Shape

if TYPE_CHECKING:
    pass  # MOVED


# Which tokens go through the model together, and which keys each of them may see.
#
# Rows (events, chunks, prefixes) lie behind one another without padding, sorted by policy::
#
#     tokens    a a a a a | b b b | c c c c        one matrix for every projection
#     policy    P P P P P   P P P   Q Q Q Q        one attention call a policy: P x 8, Q x 4 queries
#     own keys  [a a a a a]  [c c c c .]           one padded call for rows of like length
#
# A row may begin behind a past: own tokens of its context that were computed before, met like the
# policy. It may end in branches: continuations that see the row but not each other.

ALIKE = 0.7
"""Rows are padded together where the shorter has at least this share of the longer one's tokens."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image's soft tokens: where they lie among the row's, and their embeddings (n, hidden)."""

    start: int
    embedding: torch.Tensor

    @property
    def end(self) -> int:
        return self.start + int(self.embedding.shape[0])


@dataclass(frozen=True, eq=False)
class Row:
    """New tokens behind ``prefix`` and ``past``. ``wanted`` are those whose logits are asked for.

    ``branches`` continue the row's own ids, each on its own; their tokens count after ``ids``, one
    branch after the other, in ``wanted`` too.
    """

    ids: tuple[int, ...]
    prefix: PrefixKV | None = None
    past: OwnKV | None = None
    branches: tuple[tuple[int, ...], ...] = ()
    picture: Picture | None = None
    wanted: tuple[int, ...] = ()

    @property
    def start(self) -> int:
        """Position of the first new token."""
        if self.past is not None:
            return self.past.end
        return len(self.prefix) if self.prefix is not None else 0

    @property
    def count(self) -> int:
        """New tokens, branches included."""
        return len(self.ids) + sum(map(len, self.branches))

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(itertools.chain(self.ids, *self.branches))

    def places(self) -> list[int]:
        """Position of every token; branches begin again behind the row's own."""
        behind = self.start + len(self.ids)
        positions = list(range(self.start, behind))
        for ids in self.branches:
            positions += range(behind, behind + len(ids))
        return positions


@dataclass(frozen=True)
class Shared:
    """Queries ``start:end`` meet what was computed before them: a policy's prefix, or a past."""

    held: PrefixKV | OwnKV
    start: int
    end: int


@dataclass(frozen=True)
class Group:
    """Rows whose own tokens meet in one padded call.

    ``keys`` (rows, K) and ``queries`` (rows, Q) index packed tokens and queries. Of the rows x Q
    results those at ``real`` are no padding, and belong to the packed queries ``places``. ``seen``
    (rows or 1, Q, K) says who sees whom, per kind of layer.
    """

    keys: torch.Tensor
    queries: torch.Tensor
    real: torch.Tensor
    places: torch.Tensor
    seen: dict[bool, torch.Tensor]


@dataclass(frozen=True)
class Queries:
    """One set of query tokens: all of them, or in the last layer those that are wanted."""

    positions: torch.Tensor
    shared: list[Shared]
    groups: list[Group]


@dataclass(frozen=True)
class Packed:
    """Rows in packed order. ``order`` gives the caller's index of each; ``spans`` their tokens."""

    rows: list[Row]
    order: list[int]
    spans: list[range]
    ids: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor
    all: Queries
    last: Queries
    pictures: list[tuple[int, Picture]] = field(default_factory=list)


def pack(rows: Sequence[Row], shape: Shape, device: torch.device) -> Packed:
    """Lay rows out; everything is built on the host and moved over once."""
    prefixes = {id(row.prefix): number for number, row in enumerate(rows)}
    pasts = {id(row.past and row.past.layers): number for number, row in enumerate(rows)}

    def place(row: Row) -> tuple[int, int, int]:
        return prefixes[id(row.prefix)], pasts[id(row.past and row.past.layers)], -row.count

    order = sorted(range(len(rows)), key=lambda n: place(rows[n]))
    ordered = [rows[n] for n in order]
    tokens = [row.tokens for row in ordered]
    spans, end = [], 0
    for each in tokens:
        spans.append(range(end, end + len(each)))
        end += len(each)
    positions = torch.tensor([place for row in ordered for place in row.places()])
    wanted = [span.start + n for row, span in zip(ordered, spans, strict=True) for n in row.wanted]
    everything = [list(span) for span in spans]
    asked = [[span.start + n for n in row.wanted] for row, span in zip(ordered, spans, strict=True)]
    groups = [_group(each, ordered, spans, shape, device) for each in _alike(spans)]
    return Packed(
        rows=ordered,
        order=order,
        spans=spans,
        ids=torch.tensor([token for each in tokens for token in each], device=device),
        positions=positions.to(device),
        wanted=torch.tensor(wanted, dtype=torch.long, device=device),
        all=_queries(ordered, everything, everything, positions, groups, device),
        last=_queries(ordered, asked, everything, positions, groups, device),
        pictures=[
            (span.start, row.picture)
            for row, span in zip(ordered, spans, strict=True)
            if row.picture is not None
        ],
    )


@dataclass(frozen=True)
class _Square:
    """Rows of one group with every pair of their tokens (see ``seen.own_tokens``)."""

    members: list[int]
    starts: torch.Tensor
    lengths: torch.Tensor
    seen: dict[bool, torch.Tensor]


def _alike(spans: Sequence[range]) -> list[list[int]]:
    """Rows of like length."""
    groups: list[list[int]] = []
    current: list[int] = []
    for n in sorted(range(len(spans)), key=lambda n: -len(spans[n])):
        if current and len(spans[n]) < ALIKE * len(spans[current[0]]):
            groups.append(current)
            current = []
        current.append(n)
    return [*groups, current] if current else groups


def _group(
    members: list[int],
    rows: Sequence[Row],
    spans: Sequence[range],
    shape: Shape,
    device: torch.device,
) -> _Square:
    width = max(len(spans[n]) for n in members)
    seen = own_tokens([rows[n] for n in members], width, shape.window, device)
    starts = torch.tensor([spans[n].start for n in members])
    lengths = torch.tensor([len(spans[n]) for n in members])
    return _Square(members, starts, lengths, seen)


def _queries(
    rows: Sequence[Row],
    asked: Sequence[Sequence[int]],
    everything: Sequence[Sequence[int]],
    positions: torch.Tensor,
    squares: Sequence[_Square],
    device: torch.device,
) -> Queries:
    """Queries in packed order; ``asked`` are each row's among ``everything``, as packed indexes."""
    firsts = [0, *itertools.accumulate(map(len, asked))]
    flat = torch.tensor([n for each in asked for n in each], dtype=torch.long)
    groups = []
    for square in squares:
        most = max(len(asked[n]) for n in square.members)
        if most == 0:
            continue
        index = torch.arange(square.seen[False].shape[2])
        keys = square.starts[:, None] + torch.minimum(index, square.lengths[:, None] - 1)
        queries = torch.zeros((len(square.members), most), dtype=torch.long)
        local = torch.zeros_like(queries)
        real = torch.zeros_like(queries, dtype=torch.bool)
        for place, n in enumerate(square.members):
            count = len(asked[n])
            queries[place, :count] = torch.arange(firsts[n], firsts[n] + count)
            if asked is not everything:
                local[place, :count] = torch.tensor(asked[n]) - square.starts[place]
            real[place, :count] = True
        seen = square.seen
        if asked is not everything:
            seen = _asked_for(seen, local.to(device))
        at_real = real.flatten().nonzero()[:, 0]
        groups.append(
            Group(
                keys=keys.to(device),
                queries=queries.to(device),
                real=at_real.to(device),
                places=queries[real].to(device),
                seen=seen,
            )
        )
    shared = [
        *_shared([row.prefix for row in rows], firsts),
        *_shared([row.past for row in rows], firsts),
    ]
    return Queries(positions[flat].to(device), shared, groups)


def _shared(held: Sequence[PrefixKV | OwnKV | None], firsts: Sequence[int]) -> list[Shared]:
    """One entry for neighbours with the same before them; ``firsts``: where their queries begin."""
    found: list[Shared] = []
    for each, (start, end) in zip(held, itertools.pairwise(firsts), strict=True):
        if each is None or start == end:
            continue
        if found and found[-1].held.layers is each.layers and found[-1].end == start:
            found[-1] = Shared(each, found[-1].start, end)
        else:
            found.append(Shared(each, start, end))
    return found


def _asked_for(seen: dict[bool, torch.Tensor], local: torch.Tensor) -> dict[bool, torch.Tensor]:
    """The masks' rows of those queries only, (rows, queries) in places of their own row."""
    at = torch.arange(len(local), device=local.device)[:, None]
    picked: dict[int, torch.Tensor] = {}
    for mask in seen.values():
        if id(mask) not in picked:
            picked[id(mask)] = mask[at if len(mask) > 1 else 0, local]
    return {kind: picked[id(mask)] for kind, mask in seen.items()}


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
