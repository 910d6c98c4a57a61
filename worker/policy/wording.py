"""Which text a policy may put in front of the model: plain words, no control strings.

A policy is trusted more than user content, so its control strings are refused where users' ones
are sanitised; both are of one list, ``worker.guard.control_strings``.
"""

from __future__ import annotations

import unicodedata

from worker.guard.sanitise import find_control_string


def tidy(text: str) -> str:
    """The text as one line in Unicode NFC: what is rendered, and what is hashed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """The text as it is searched: compatibility forms, case and invisible characters removed."""
    visible = "".join(
        each for each in unicodedata.normalize("NFKC", text) if unicodedata.category(each) != "Cf"
    )
    return " ".join(visible.casefold().split())


def wording_problem(text: str) -> str | None:
    """Why a policy may not say this, or None."""
    for each in text:
        if unicodedata.category(each) in ("Cc", "Cs", "Co") and each not in "\t\n\r":
            return f"the control character U+{ord(each):04X} is not allowed"
    found = find_control_string(text)
    return f"`{found.name}` is a control string of the prompt template" if found else None
