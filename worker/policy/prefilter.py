"""A policy's lists made ready to search, and the hits in one event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from worker.contracts.event import JudgedTurn
from worker.contracts.verdict import FoundIn, PrefilterHit
from worker.images import FetchedImage
from worker.policy.digest import digest
from worker.policy.model import Policy, Prefilter, PrefilterList
from worker.prefilter.phrases import PhraseList, PhraseMatcher
from worker.prefilter.pictures import ImageList, ImageMatcher
from worker.text.turn import LONG_TEXT

_KEPT = 256


class CompiledPrefilter:
    """Every list of one policy. Searching keeps no state; it can be shared."""

    def __init__(self, prefilter: Prefilter) -> None:
        self._spoken = [each for each in prefilter.lists if not each.of_images]
        self._shown = [each for each in prefilter.lists if each.of_images]
        self._phrases = PhraseMatcher(
            [PhraseList(phrases=each.entries, match=each.match) for each in self._spoken],
            (*prefilter.allow, *prefilter.loaded),
        )
        self._images = ImageMatcher(
            [ImageList(digests=each.entries, distance=each.distance) for each in self._shown]
        )

    async def in_text(self, turn: JudgedTurn, read: JudgedTurn) -> tuple[PrefilterHit, ...]:
        """Hits in the texts of the judged turn, as it was written and as it is read.

        Earlier turns are context and are not searched.
        """
        if not self._spoken:
            return ()
        sides: list[tuple[FoundIn, str, str]] = [("user", turn.user.text, read.user.text)]
        if turn.response is not None and read.response is not None:
            sides.append(("response", turn.response.text, read.response.text))
        hits: list[PrefilterHit] = []
        for side, text, folded in sides:
            if len(text) < LONG_TEXT:
                found = self._phrases.search(text, folded)
            else:
                found = await asyncio.to_thread(self._phrases.search, text, folded)
            hits += (_hit(self._spoken[index], side) for index in found)
        return tuple(hits)

    async def in_images(self, images: Sequence[FetchedImage]) -> tuple[PrefilterHit, ...]:
        """Hits among decoded images, by their place in the event."""
        if not self._shown:
            return ()
        hits: list[PrefilterHit] = []
        for place, image in enumerate(images):
            if self._images.looks:
                found = await asyncio.to_thread(self._images.search, image)
            else:
                found = self._images.search(image)
            hits += (_hit(self._shown[index], "image", place) for index in found)
        return tuple(hits)


_ready: dict[str, CompiledPrefilter] = {}


def prefilter_of(policy: Policy) -> CompiledPrefilter | None:
    """The policy's prefilter, made once for equal policies; None where it has none."""
    if policy.prefilter is None:
        return None
    key = policy.sha256 or digest(policy)
    found = _ready.get(key)
    if found is None:
        found = CompiledPrefilter(policy.prefilter)
        while len(_ready) >= _KEPT:
            _ready.pop(next(iter(_ready)))
        _ready[key] = found
    return found


def _hit(each: PrefilterList, found_in: FoundIn, image: int | None = None) -> PrefilterHit:
    return PrefilterHit(
        list=each.name,
        decide=each.decide,
        category=each.category,
        found_in=found_in,
        image=image,
    )
