"""How likely the floor's name could have been written, from the alternatives in one answer.

The category line may have gone on with the floor's name at its beginning and behind every name in
it. At each such place the name is followed as far as the line itself spells it; where the two part,
the likeliest alternative that still fits is the most that the name can have::

    Safety Categories:| Harass|ment            Sexual 0.20 stood beside ` Harass`: at most 0.20
    Safety Categories:| Sexual|<end of turn>   ` (` 0.03 stood beside the end: at most 0.9 x 0.03

A bound below the floor's threshold settles the question. Where one does not, the token that keeps
it open is known (``Open``), and the judge asks again with that token preferred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker.judge.remote.answer import Answer

Spelling = Sequence[bytes]
"""The tokens that spell a text, in order."""


@dataclass(frozen=True)
class Place:
    """Where the floor's name may stand: byte ``start`` of the answer, and how it is spelled there.

    ``spelling`` is empty where the server's tokenizer is not known: then ``text`` alone counts.
    """

    start: int
    text: bytes
    spelling: Spelling = ()


@dataclass(frozen=True)
class Open:
    """What keeps a bound open: ``token`` might have been written at byte ``at``, ``gap`` less
    likely (in log-probability) than what was."""

    at: int
    token: bytes
    gap: float


@dataclass(frozen=True)
class Bound:
    """The most that the floor's name can have at a place; ``spelled`` is what it surely has.

    ``open`` is None where nothing more can be found out by asking for a listed token.
    """

    most: float
    spelled: float = 0.0
    open: Open | None = None


def bound(answer: Answer, place: Place, reached: float = 1.0) -> Bound:
    """Follow the floor's name from a place; ``reached`` is the probability of having got there."""
    rest, index = place.text, 0
    most, opened, probability = 0.0, None, reached
    for token in answer.tokens:
        if token.end <= place.start:
            continue
        if token.start < place.start and not rest.startswith(
            token.text[place.start - token.start :]
        ):
            return Bound(most, 0.0, opened)  # one token spells the place's end and something else
        own = token.text[max(0, place.start - token.start) :]
        expected = place.spelling[index] if index < len(place.spelling) else None
        fitting = [
            (text, logprob)
            for text, logprob in token.others
            if (text == expected if expected is not None else text and _fits(text, rest))
        ]
        unlisted = token.unlisted() if own != expected else 0.0
        best = max((math.exp(logprob) for _, logprob in fitting), default=unlisted)
        if probability * best > most:
            most, opened = probability * best, None
            if fitting:
                text, logprob = max(fitting, key=lambda each: each[1])
                opened = Open(token.start, text, token.logprob - logprob)
        probability *= math.exp(token.logprob)
        if not own or not rest.startswith(own):
            if own and own.startswith(rest) and not own[len(rest) : len(rest) + 1].isalnum():
                return Bound(max(most, probability), probability, None)
            return Bound(most, 0.0, opened)
        rest, index = rest[len(own) :], index + 1
        if not rest:
            return Bound(max(most, probability), probability, None)
    # The answer ends here, and nothing says what else might have followed.
    return Bound(max(most, probability), 0.0, None)


def _fits(text: bytes, rest: bytes) -> bool:
    return rest.startswith(text) or text.startswith(rest)


def places(line: int, ends: Sequence[int], first: Spelling, further: Spelling) -> Iterator[Place]:
    """The beginning of the line (byte behind its colon), and the end of each name in it."""
    yield Place(line, b" Sexual (minor)", first)
    for end in ends:
        yield Place(end, b", Sexual (minor)", further)
