"""The fixed format in which earlier turns are folded into the user text of a context.

The model takes one user turn, so history is quoted above the judged text. The format is part of the
template hash of every verdict; only what follows ``JUDGED_MARK`` is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

EARLIER_MARK = "[Earlier in this conversation, for context only]"
JUDGED_MARK = "[The message to judge]"


def fold_context(earlier: Sequence[tuple[str, str]], judged: str) -> str:
    """Quote ``earlier`` turns (role, text), oldest first, above the judged text."""
    if not earlier:
        return judged
    quoted = "\n".join(f"{role}: {text}" for role, text in earlier)
    return f"{EARLIER_MARK}\n{quoted}\n{JUDGED_MARK}\n{judged}"
