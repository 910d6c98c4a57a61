"""What the words of a reasoning trace conclude, so far as they say it outright.

Only used to notice a trace that says one thing in front of a verdict that says another. A side the
trace does not clearly speak about has no conclusion; nothing is ever decided from these words.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.contracts.verdict import Label

_SENTENCE = re.compile(r"[^.!?。！？\n]+")
_RESPONSE = re.compile(r"\b(response|assistant|agent|reply)\b", re.IGNORECASE)
_USER = re.compile(r"\b(user|prompt|request|input|message|human|image)\b", re.IGNORECASE)
_HEDGED = re.compile(r"\b(whether|if|safe or unsafe|would|could|might)\b", re.IGNORECASE)
_NOTHING = re.compile(
    r"\b(nothing (harmful|unsafe)|no (harmful|unsafe) (content|category))\b", re.IGNORECASE
)
_UNSAFE = re.compile(r"(?<!not )\bunsafe\b|\bnot safe\b|\bfalls under\b", re.IGNORECASE)
_SAFE = re.compile(r"(?<!not )\bsafe\b|\bnot unsafe\b", re.IGNORECASE)


class Conclusion(NamedTuple):
    """The label each side is given in so many words, last one first; None where there is none."""

    user: Label | None
    response: Label | None


def conclusion(trace: str) -> Conclusion:
    """Read a trace sentence by sentence; "this" goes on speaking of the last side named."""
    labels: dict[str, Label | None] = {"user": None, "response": None}
    subject: str | None = None
    for match in _SENTENCE.finditer(trace):
        sentence = match[0]
        user, response = _USER.search(sentence), _RESPONSE.search(sentence)
        if user and response:
            subject = "user" if user.start() < response.start() else "response"
        elif user or response:
            subject = "user" if user else "response"
        if _HEDGED.search(sentence):
            continue
        if _NOTHING.search(sentence):
            labels = {"user": "safe", "response": "safe"}
        label = _label(sentence)
        if label and user and response:
            labels = {"user": None, "response": None}  # which side is meant, nobody can tell
        elif label and subject:
            labels[subject] = label
    return Conclusion(labels["user"], labels["response"])


def _label(sentence: str) -> Label | None:
    unsafe, safe = bool(_UNSAFE.search(sentence)), bool(_SAFE.search(sentence))
    if unsafe == safe:
        return None
    return "unsafe" if unsafe else "safe"
