"""The THINK lane: traces of many policies written together, new ones joining at every step.

A trace goes on from what its event's verdict computed; only the switch at the prompt's end differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.errors import Undecided
from worker.judge.engine.batch import Row
from worker.judge.engine.decode_batch import MOST, Slots, write_on
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.kv_cache import OwnKV
from worker.judge.engine.prefix_cache import Prefixes
from worker.judge.engine.sequences import rows_for
from worker.judge.local.reasoning import TraceRules
from worker.judge.local.requests import Trace, TraceAsk
from worker.judge.reference.decode import Written

SHORT = 32
"""A row that lacks no more tokens than this catches up within the decoding step."""


class PackedTraces:
    """Implements ``device.Traces``. Not thread-safe: it belongs to the device thread."""

    def __init__(
        self, forward: Forward, prefixes: Prefixes, images: ImageEmbeddings, rules: TraceRules
    ) -> None:
        self._forward, self._prefixes, self._images = forward, prefixes, images
        self._rules = rules
        self._slots = Slots(forward)
        self._numbers: list[int] = []
        self._written: list[Written] = []
        self._pending: list[tuple[int, ...]] = []
        self._started = 0

    @property
    def active(self) -> bool:
        return bool(self._numbers)

    def add(self, asks: Sequence[TraceAsk]) -> range:
        rows = rows_for(
            [ask.context for ask in asks],
            [ask.row for ask in asks],
            self._prefixes,
            self._images,
        )
        before = self._started
        try:
            for ask, (own, pending) in zip(asks, self._computed(rows), strict=True):
                self._slots.add(own, len(pending) + ask.budget + MOST)
                self._numbers.append(self._started)
                self._written.append(Written(ask.budget))
                self._pending.append(pending)
                self._started += 1
        except Exception:  # no memory for one of them: none of them joins, the others go on
            for number in range(before, self._started):
                self.drop(number)
            raise
        return range(before, self._started)

    def step(self) -> list[tuple[int, Trace | Undecided]]:
        guesses = [self._rules.guess] * len(self._pending)
        self._pending = write_on(
            self._forward, self._slots, self._pending, self._written, guesses, self._rules.writing
        )
        ended = [n for n, written in enumerate(self._written) if written.ended]
        results = []
        for place in reversed(ended):
            trace = self._rules.trace(self._written[place], self._slots.own(place))
            results.append((self._numbers[place], trace))
            self._remove(place)
        return results

    def drop(self, number: int) -> None:
        if number in self._numbers:
            self._remove(self._numbers.index(number))

    def _remove(self, place: int) -> None:
        self._slots.remove(place)
        columns: list[list[Any]] = [self._numbers, self._written, self._pending]
        for column in columns:
            column[place] = column[-1]
            column.pop()

    def _computed(self, rows: Sequence[Row]) -> list[tuple[OwnKV, tuple[int, ...]]]:
        """What is known of every row, and the few tokens left to compute with the first step."""
        behind = [
            n
            for n, row in enumerate(rows)
            if row.past is None or row.picture is not None or len(row.ids) > SHORT
        ]
        fresh: dict[int, OwnKV] = {}
        if behind:
            short = [Row(rows[n].ids[:-1], rows[n].prefix, rows[n].past, picture=rows[n].picture)
                     for n in behind]  # fmt: skip
            kept = self._forward.run(short, keep=[True] * len(short)).kept
            fresh = {n: own for n, own in zip(behind, kept, strict=True) if own is not None}
        found: list[tuple[OwnKV, tuple[int, ...]]] = []
        for n, row in enumerate(rows):
            if n in fresh:
                found.append((fresh[n], row.ids[-1:]))
            else:
                assert row.past is not None
                found.append((row.past, row.ids))
        return found
