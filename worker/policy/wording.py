"""Which text a policy may put in front of the model: plain words, no control strings.

A policy is trusted more than user content, so its control strings are refused where users' ones
are neutralised. Which strings those are, the family of guards says.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from worker.guard.base import ControlString, GuardModel


def tidy(text: str) -> str:
    """The text as one line in Unicode NFC: what is rendered, and what is hashed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """The text as it is searched: compatibility forms, case and invisible characters removed."""
    visible = "".join(
        each for each in unicodedata.normalize("NFKC", text) if unicodedata.category(each) != "Cf"
    )
    return " ".join(visible.casefold().split())


def wording_problem(text: str, guard: GuardModel) -> str | None:
    """Why a policy may not say this, or None."""
    for each in text:
        if unicodedata.category(each) in ("Cc", "Cs", "Co") and each not in "\t\n\r":
            return f"the control character U+{ord(each):04X} is not allowed"
    folded = fold(text)
    dense = "".join(folded.split())
    for control, pattern in _refused(guard):
        if pattern.search(folded if control.text.startswith("/") else dense):
            return f"`{control.text}` is a control string of the prompt template"
    return None


@lru_cache(maxsize=16)
def _refused(guard: GuardModel) -> tuple[tuple[ControlString, re.Pattern[str]], ...]:
    """What is refused, and how it is found: a switch as a word of its own, all else anywhere."""
    found = []
    for control in guard.control_strings:
        if not control.refused:
            continue
        pattern = re.escape("".join(fold(control.text).split()))
        if control.numbered:
            pattern = pattern.replace("0", r"\d+")
        if control.text.startswith("/"):
            pattern = rf"(?<![\w/]){pattern}\b"
        found.append((control, re.compile(pattern)))
    return tuple(found)
