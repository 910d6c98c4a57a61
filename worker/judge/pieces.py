"""A prompt in three pieces, of which only the middle one depends on the event::

    <bos>…policy…⏎ | <BEGIN CONVERSATION>⏎user: TEXT … ⏎<END CONVERSATION>⏎ | Output your answer…

The outer pieces are tokenised once for a policy. Cutting is only right where no token spans a cut,
whatever the text: cuts lie behind line breaks of the constant text, a line away from the event, and
probes are tokenised both ways before a prompt is ever cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Encode = Callable[[str], Sequence[int]]
Render = Callable[[str, str | None], str]

_USER, _RESPONSE = "QXUSERXQ", "QXRESPONSEXQ"
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
class Pieces:
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
        """The middle piece."""
        return f"{self.before}{user}{self.between}{response or ''}{self.behind}"


def cut(render: Render, encode: Encode, *, response: bool) -> Pieces | None:
    """The pieces of what ``render`` gives; None where this prompt cannot be cut safely."""
    whole = render(_USER, _RESPONSE if response else None)
    if whole.count(_USER) != 1 or whole.count(_RESPONSE) != int(response):
        return None
    front, _, rest = whole.partition(_USER)
    between, _, back = rest.partition(_RESPONSE) if response else ("", "", rest)
    first, last = _line_before(front), _line_behind(back)
    if first is None or last is None:
        return None
    pieces = Pieces(
        head=tuple(encode(front[:first])),
        before=front[first:],
        between=between,
        behind=back[:last],
        tail=tuple(encode(back[last:])),
    )
    for probe in PROBES:
        answer = probe if response else None
        spelled = (*pieces.head, *encode(pieces.text(probe, answer)), *pieces.tail)
        if spelled != tuple(encode(render(probe, answer))):
            return None
    return pieces


def _line_before(front: str) -> int | None:
    """Behind the last line break that has a whole line between it and the event."""
    near = front.rfind("\n")
    far = front.rfind("\n", 0, near) if near > 0 else -1
    return far + 1 if far >= 0 else None


def _line_behind(back: str) -> int | None:
    near = back.find("\n")
    far = back.find("\n", near + 1) if near >= 0 else -1
    return far + 1 if far >= 0 else None
