"""Which of the waiting contexts go to the device together. A pure choice, made when it is free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Waiting(Protocol):
    """What the choice looks at: the adapter it needs, and its length in tokens."""

    @property
    def adapter(self) -> str | None: ...

    @property
    def tokens(self) -> int: ...


def pick(waiting: Sequence[Waiting], max_rows: int, max_tokens: int) -> list[int]:
    """Indexes of the next batch among ``waiting`` (oldest first).

    The oldest is always in it, so nothing starves; the rest share its adapter (policies mix
    freely) and are those nearest to it in length, while rows x the longest stays within
    ``max_tokens``. A context longer than that goes alone.
    """
    if not waiting:
        return []
    oldest = waiting[0]
    others = [i for i in range(1, len(waiting)) if waiting[i].adapter == oldest.adapter]
    others.sort(key=lambda index: abs(waiting[index].tokens - oldest.tokens))
    chosen, longest = [0], oldest.tokens
    for index in others:
        if len(chosen) == max_rows:
            break
        width = max(longest, waiting[index].tokens)
        if width * (len(chosen) + 1) <= max_tokens:
            chosen.append(index)
            longest = width
    return sorted(chosen)
