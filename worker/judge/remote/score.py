"""P(unsafe) of a label that was written, from the alternatives listed at its tokens.

::

    User Safety:| safe            safe -0.02,  unsafe -4.1                one token a label
    User Safety:| |un|safe        at `un`:  s -0.7, un -0.7               split, blank by itself

At every token between the colon and the label's first letter each alternative that goes on with
``safe`` or ``unsafe`` counts for it, times the probability of having got there. The score is the
share of ``unsafe`` in both.
"""

from __future__ import annotations

import math

from worker.contracts.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.judge.base import Side
from worker.judge.remote.answer import Answer, Token

_SLACK = 0.02
"""How far a written label may lie on the wrong side of one half: servers round."""


def score_label(answer: Answer, colon: int, label: int, written: Label) -> Side:
    """The side whose label begins at byte ``label`` of ``answer.spelled``, behind a colon's end.

    A label that is not among the alternatives gets the most it can have if it is ``unsafe``, and
    nothing if it is ``safe``.

    Raises:
        Undecided: the label that was written is not the likelier one, or no alternatives came.
    """
    blank = answer.spelled[colon:label]
    mass = {"safe": 0.0, "unsafe": 0.0}
    unlisted, reached, listed = 0.0, 1.0, False
    for token in answer.tokens:
        if token.end <= colon or token.start > label:
            continue
        listed = listed or bool(token.others)
        for text, logprob in ((token.text, token.logprob), *token.others):
            kind = _continues(text, token, colon, blank, answer.spelled)
            if kind is not None:
                mass[kind] += reached * math.exp(logprob)
        unlisted = max(unlisted, reached * token.unlisted())
        reached *= math.exp(token.logprob)
    if not listed or mass[written] == 0.0:
        raise Undecided(UndecidedReason.MALFORMED_OUTPUT, detail="no alternatives to the label")
    unsafe = mass["unsafe"] or unlisted
    score = unsafe / (unsafe + mass["safe"]) if unsafe + mass["safe"] > 0.0 else 1.0
    likelier = score if written == "unsafe" else 1.0 - score
    if likelier < 0.5 - _SLACK:
        raise Undecided(
            UndecidedReason.MALFORMED_OUTPUT, detail="the label written is not the likelier one"
        )
    if written == "unsafe":
        score = max(score, 0.5)  # between two equal labels, unsafe is the one that counts
    return Side(label="unsafe" if score >= 0.5 else "safe", score=score)


def _continues(text: bytes, token: Token, colon: int, blank: bytes, spelled: bytes) -> Label | None:
    """Which label an alternative at a token's place goes on with; None for neither, or not yet."""
    before = spelled[colon : token.start]  # empty where the token begins with or before the colon
    inside = max(0, colon - token.start)
    if text[:inside] != token.text[:inside]:
        return None
    path = before + text[inside:]
    labels: tuple[Label, Label] = ("unsafe", "safe")
    for label in labels:
        target = blank + label.encode()
        if len(path) > len(blank) and _agree(path.lower(), target):
            return label
    return None


def _agree(path: bytes, target: bytes) -> bool:
    """Whether one begins with the other, and no letter follows the label."""
    if len(path) <= len(target):
        return target.startswith(path)
    return path.startswith(target) and not path[len(target) :][:1].isalnum()
