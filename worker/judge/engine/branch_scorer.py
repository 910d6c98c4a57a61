"""Labels of a batch from one packed forward, without decoding.

Behind each event stand both ways its answer can begin::

    policy | event, tail, "User Safety:" [?]                          no response
    policy | event, tail, "User Safety:" [?] + " safe⏎Response Safety:" [?]
                                             + " unsafe⏎Response Safety:" [?]

The two branches see the event but not each other, so ``[?]`` are exactly the logits that decoding
would have met, whichever label the user gets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from worker.errors import Undecided
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.prefix_cache import ImageKVCache, PrefixCache
from worker.judge.engine.sequences import ComputedSequences, sequences_for
from worker.judge.local.label_scores import (
    MIN_CONSTANT,
    AnswerTokens,
    Chances,
    Labels,
    Sides,
    known,
    not_finite,
)
from worker.judge.local.requests import ScoreRequest
from worker.telemetry import instruments


class BranchScorer(Labels):
    """Implements ``batch_scoring.Labelling`` with the packed forward."""

    def __init__(
        self,
        forward: Forward,
        prefixes: PrefixCache,
        images: ImageEmbeddings,
        image_keys: ImageKVCache,
        answer: AnswerTokens,
        tokenizer: Any,
        *,
        min_constant: float = MIN_CONSTANT,
    ) -> None:
        super().__init__(answer, tokenizer, min_constant=min_constant)
        self._forward, self._prefixes = forward, prefixes
        self._images, self._image_keys = images, image_keys
        self._branches = tuple((label, *answer.response) for label in (answer.safe, answer.unsafe))

    def label(
        self, requests: Sequence[ScoreRequest]
    ) -> tuple[ComputedSequences, list[Sides | Undecided]]:
        sequences = self._sequences(requests)
        forwarded = self._forward.run(sequences, keep=[True] * len(sequences))
        results: list[Sides | Undecided | None] = []
        written: list[int] = []
        found = self._chances(forwarded.logits)
        for index, (request, chances) in enumerate(zip(requests, found, strict=True)):
            sides = self._sides(request, chances)
            if sides is None:
                written.append(index)
            results.append(sides)
        kept = [each for each in forwarded.kept if each is not None]
        for request, each, own in zip(requests, sequences, kept, strict=True):
            if each.past is None:
                self._image_keys.keep(request.context, own)
        computed = ComputedSequences(self._forward, kept)
        if written:
            instruments.answers_written.add(len(written))
            self._write(computed, requests, written, results)
        return computed, [known(result) for result in results]

    def _sequences(self, requests: Sequence[ScoreRequest]) -> list[InputSequence]:
        answer, sequences = self._answer, []
        whole = sequences_for(
            [request.context for request in requests],
            [request.known or self._image_keys.find(request.context) for request in requests],
            self._prefixes,
            self._images,
            tail=answer.user,
        )
        for request, each in zip(requests, whole, strict=True):
            trunk = len(each.ids)
            # The token in front of the tail predicts the tail's first.
            wanted = list(range(trunk - len(answer.user) - 1, trunk))
            branches = self._branches if request.response else ()
            wanted += range(trunk, trunk + sum(len(branch) for branch in branches))
            sequences.append(dataclasses.replace(each, branches=branches, wanted=tuple(wanted)))
        return sequences

    def _sides(self, request: ScoreRequest, chances: list[Chances]) -> Sides | Undecided | None:
        """Both labels; None where the constant text is improbable, so that it must be written."""
        answer = self._answer
        stem = len(answer.user) + 1
        user = self._competition(chances[:stem], answer.user, len(answer.user))
        if user is None:
            return not_finite()
        if user[1] < self._min_constant:
            return None
        if not request.response:
            return Sides(user[0], None)
        length = len(answer.response) + 1
        start = stem + (length if user[0].label == "unsafe" else 0)
        path = chances[:stem] + chances[start : start + length]
        tail = (*answer.user, answer.label(user[0].label), *answer.response)
        response = self._competition(path, tail, len(tail))
        if response is None:
            return not_finite()
        if response[1] < self._min_constant:
            return None
        return Sides(user[0], response[0])
