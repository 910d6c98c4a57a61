"""The varlen batch: sequences that go through the model together, behind one another.

Without padding, sorted by policy::

    tokens    a a a a a | b b b | c c c c        one matrix for every projection
    policy    P P P P P   P P P   Q Q Q Q        keys that were computed before are shared

A sequence may begin behind a past: own tokens of its context that were computed before, met like
the policy. It may end in branches: continuations that see the sequence but not each other::

    text            two branches      an image
    x . . . .       x . . . .         x . . . .
    x x . . .       x a . . .         x i i . .
    x x x . .       x a a . .         x i i . .
    x x x x .       x . . b .         x x x x .

Everything here is on the host, and nothing knows how attention is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from worker.judge.engine.kv_cache import KVSegment, PrefixKV, SequenceKV, Slot


@dataclass(frozen=True, eq=False)
class ImageSpan:
    """An image's soft tokens: where they lie among the sequence's, and their embeddings (n,
    hidden)."""

    start: int
    embedding: torch.Tensor

    @property
    def end(self) -> int:
        return self.start + int(self.embedding.shape[0])


@dataclass(frozen=True, eq=False)
class InputSequence:
    """New tokens behind ``prefix`` and ``past``. ``wanted`` are those whose logits are asked for.

    ``branches`` continue the sequence's own ids, each on its own; their tokens count after ``ids``,
    one branch after the other, in ``wanted`` too.
    """

    ids: tuple[int, ...]
    prefix: PrefixKV | None = None
    past: SequenceKV | Slot | None = None
    branches: tuple[tuple[int, ...], ...] = ()
    image: ImageSpan | None = None
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

    def positions(self) -> list[int]:
        """Position of every token; branches begin again behind the sequence's own."""
        behind = self.start + len(self.ids)
        positions = list(range(self.start, behind))
        for ids in self.branches:
            positions += range(behind, behind + len(ids))
        return positions

    def branch_spans(self) -> list[tuple[int, int]]:
        """Where each branch's tokens lie among the sequence's."""
        spans, start = [], len(self.ids)
        for branch in self.branches:
            spans.append((start, start + len(branch)))
            start += len(branch)
        return spans

    def segments(self) -> list[tuple[KVSegment, int]]:
        """What was computed before the sequence and is only read, each with the position behind
        its last token: a policy, a kept image, earlier chunks."""
        found = []
        if self.prefix is not None:
            found.append((self.prefix.kv, self.prefix.end))
        if isinstance(self.past, SequenceKV):
            found.append((self.past.kv, self.past.end))
        return found


class VarlenBatch:
    """Sequences in packed order. ``order`` gives the caller's index of each, ``spans`` the packed
    indexes of its tokens.

    Sequences of one policy are neighbours, and among them those that share a past: a policy's keys
    are met once for all of them. A batch of ``slots`` keeps its order.
    """

    def __init__(self, sequences: Sequence[InputSequence]) -> None:
        self.order = _shared_first(sequences)
        self.sequences = [sequences[n] for n in self.order]
        self.spans: list[range] = []
        end = 0
        for each in self.sequences:
            self.spans.append(range(end, end + each.count))
            end += each.count
        self.tokens = end
        """Tokens of all sequences."""

    @property
    def ids(self) -> list[int]:
        return [token for each in self.sequences for token in each.tokens]

    @cached_property
    def positions(self) -> torch.Tensor:
        """Position of every token, on the host."""
        return torch.tensor([place for each in self.sequences for place in each.positions()])

    @cached_property
    def asked(self) -> list[list[int]]:
        """Packed indexes of each sequence's wanted tokens."""
        pairs = zip(self.sequences, self.spans, strict=True)
        return [[span.start + n for n in each.wanted] for each, span in pairs]

    @cached_property
    def wanted(self) -> list[int]:
        """Packed indexes of all wanted tokens."""
        return list(itertools.chain.from_iterable(self.asked))

    @property
    def images(self) -> list[tuple[int, ImageSpan]]:
        """Images, and the packed index at which each one's sequence begins."""
        pairs = zip(self.sequences, self.spans, strict=True)
        return [(span.start, each.image) for each, span in pairs if each.image is not None]

    @property
    def decoding(self) -> bool:
        """Whether its sequences go on in slots."""
        return bool(self.sequences) and isinstance(self.sequences[0].past, Slot)


def _shared_first(sequences: Sequence[InputSequence]) -> list[int]:
    if any(isinstance(each.past, Slot) for each in sequences):
        return list(range(len(sequences)))
    prefixes = {id(each.prefix): n for n, each in enumerate(sequences)}
    pasts = {id(_kv(each)): n for n, each in enumerate(sequences)}

    def place(n: int) -> tuple[int, int, int]:
        each = sequences[n]
        return prefixes[id(each.prefix)], pasts[id(_kv(each))], -each.count

    return sorted(range(len(sequences)), key=place)


def _kv(sequence: InputSequence) -> object:
    return sequence.past.kv if isinstance(sequence.past, SequenceKV) else None
