"""A prompt in three segments, of which only the middle one depends on the event::

    <bos>…policy…⏎ | <BEGIN CONVERSATION>⏎user: TEXT … ⏎<END CONVERSATION>⏎ | Output your answer…

The outer segments are tokenised once for a policy. Cutting is only right where no token spans a
cut, whatever the text: cuts lie at line breaks of the constant text, a line away from the event,
and probes are tokenised both ways before a prompt is ever cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Encode = Callable[[str], Sequence[int]]
Render = Callable[[str, str | None], str]

_USER, _RESPONSE = "QXUSERXQ", "QXRESPONSEXQ"
_BREAK = re.compile(r"\n+")
_TRIED = 3
"""Line breaks tried on each side: some tokenizers have tokens that span lines."""
PROBES = (
    "a",
    "Z z  z",
    "7",
    ".",
    "line\n\nline",
    "<tag>",
    "…",
    "中文",
    "עברית",
    "ไทย",
    "🙂",
    "\u200b",
    "end:",
    "-\t-",
)


@dataclass(frozen=True)
class Segments:
    """One policy's prompt for one shape of event (with or without response, image, thinking).

    ``head`` and ``tail`` are token ids; ``before``, ``between`` and ``behind`` the constant text
    around the user's text and the response.
    """

    head: tuple[int, ...]
    before: str
    between: str
    behind: str
    tail: tuple[int, ...]

    def text(self, user: str, response: str | None) -> str:
        """The middle segment."""
        return f"{self.before}{user}{self.between}{response or ''}{self.behind}"


def cut(render: Render, encode: Encode, *, response: bool, image: str = "") -> Segments | None:
    """The segments of what ``render`` gives; None where this prompt cannot be cut safely.

    ``image`` is the text an image stands as in front of the user's; it belongs to the event, so
    that events with and without one begin with the same policy.
    """
    whole = render(_USER, _RESPONSE if response else None)
    if whole.count(_USER) != 1 or whole.count(_RESPONSE) != int(response):
        return None
    front, _, rest = whole.partition(_USER)
    between, _, back = rest.partition(_RESPONSE) if response else ("", "", rest)
    constant = front.partition(image)[0] if image else front
    answers = [probe if response else "" for probe in PROBES]
    texts = [
        f"{front}{probe}{between}{answer}{back}"
        for probe, answer in zip(PROBES, answers, strict=True)
    ]
    known = [tuple(encode(text)) for text in texts]

    def holds(place: int) -> bool:
        """Whether every probe may be cut there; places behind the event count from the end."""
        parts = ((text[:place], text[place:]) for text in texts)
        return all(
            (*encode(one), *encode(other)) == ids
            for (one, other), ids in zip(parts, known, strict=True)
        )

    first = next((place for place in _places_before(constant) if holds(place)), None)
    last = next((place for place in _places_behind(back) if holds(place - len(back))), None)
    if first is None or last is None:
        return None
    segments = Segments(
        head=tuple(encode(front[:first])),
        before=front[first:],
        between=between,
        behind=back[:last],
        tail=tuple(encode(back[last:])),
    )
    for probe, answer in zip(PROBES, answers, strict=True):
        spelled = (*segments.head, *encode(segments.text(probe, answer)), *segments.tail)
        if spelled != tuple(encode(render(probe, answer if response else None))):
            return None
    return segments


def _places_before(front: str) -> list[int]:
    """Behind and in front of line breaks that have a whole line between them and the event,
    nearest to it first."""
    lines = [match.span() for match in _BREAK.finditer(front)][:-1]
    return [place for start, end in lines[: -_TRIED - 1 : -1] for place in (end, start) if place]


def _places_behind(back: str) -> list[int]:
    """Likewise; the first of them has to leave something behind it."""
    lines = [match.span() for match in _BREAK.finditer(back)][1 : _TRIED + 1]
    places = [place for start, end in lines for place in (end, start)]
    return [place for place in places if place < len(back)]
