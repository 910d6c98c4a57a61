"""The THINK lane: traces of many policies written together, new ones joining at every step.

A trace goes on from what its event's verdict computed; only the switch at the prompt's end differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from worker.errors import Undecided
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.decode_batch import MAX_DRAFT_TOKENS, DecodeBatch, decode
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.kv_cache import SequenceKV
from worker.judge.engine.prefix_cache import PrefixCache
from worker.judge.engine.sequences import sequences_for
from worker.judge.local.reasoning import ReasoningRules
from worker.judge.local.requests import ReasoningRequest, ReasoningResult
from worker.judge.reference.decode import Written

CATCH_UP = 32
"""A sequence that lacks no more tokens than this catches up within the decoding step."""


class ReasoningBatch:
    """Implements ``device.ReasoningLane``. Not thread-safe: it belongs to the device thread."""

    def __init__(
        self,
        forward: Forward,
        prefixes: PrefixCache,
        images: ImageEmbeddings,
        rules: ReasoningRules,
    ) -> None:
        self._forward, self._prefixes, self._images = forward, prefixes, images
        self._rules = rules
        self._batch = DecodeBatch(forward)
        self._numbers: list[int] = []
        self._written: list[Written] = []
        self._pending: list[tuple[int, ...]] = []
        self._started = 0

    @property
    def active(self) -> bool:
        return bool(self._numbers)

    def add(self, requests: Sequence[ReasoningRequest]) -> range:
        sequences = sequences_for(
            [request.context for request in requests],
            [request.known for request in requests],
            self._prefixes,
            self._images,
        )
        before = self._started
        try:
            for request, (own, pending) in zip(requests, self._computed(sequences), strict=True):
                self._batch.add(own, len(pending) + request.budget + MAX_DRAFT_TOKENS)
                self._numbers.append(self._started)
                self._written.append(Written(request.budget))
                self._pending.append(pending)
                self._started += 1
        except Exception:  # no memory for one of them: none of them joins, the others go on
            for number in range(before, self._started):
                self.drop(number)
            raise
        return range(before, self._started)

    def step(self) -> list[tuple[int, ReasoningResult | Undecided]]:
        drafts = [self._rules.draft] * len(self._pending)
        self._pending = decode(
            self._forward, self._batch, self._pending, self._written, drafts, self._rules.writing
        )
        ended = [n for n, written in enumerate(self._written) if written.ended]
        results = []
        for place in reversed(ended):
            trace = self._rules.trace(self._written[place], self._batch.sequence(place))
            results.append((self._numbers[place], trace))
            self._remove(place)
        return results

    def drop(self, number: int) -> None:
        if number in self._numbers:
            self._remove(self._numbers.index(number))

    def _remove(self, place: int) -> None:
        self._batch.remove(place)
        columns: list[list[Any]] = [self._numbers, self._written, self._pending]
        for column in columns:
            column[place] = column[-1]
            column.pop()

    def _computed(
        self, sequences: Sequence[InputSequence]
    ) -> list[tuple[SequenceKV, tuple[int, ...]]]:
        """What is known of every row, and the few tokens left to compute with the first step."""
        behind = [
            n
            for n, each in enumerate(sequences)
            if each.past is None or each.image is not None or len(each.ids) > CATCH_UP
        ]
        fresh: dict[int, SequenceKV] = {}
        if behind:
            short = [dataclasses.replace(sequences[n], ids=sequences[n].ids[:-1]) for n in behind]
            kept = self._forward.run(short, keep=[True] * len(short)).kept
            fresh = {n: own for n, own in zip(behind, kept, strict=True) if own is not None}
        found: list[tuple[SequenceKV, tuple[int, ...]]] = []
        for n, each in enumerate(sequences):
            if n in fresh:
                found.append((fresh[n], each.ids[-1:]))
            else:
                assert isinstance(each.past, SequenceKV)
                found.append((each.past, each.ids))
        return found
