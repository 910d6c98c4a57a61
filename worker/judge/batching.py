"""Which of the waiting contexts go to the device together. A pure choice, made when it is free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Waiting(Protocol):
    """What the choice looks at: the adapter it needs, and the tokens it costs."""

    @property
    def adapter(self) -> str | None: ...

    @property
    def tokens(self) -> int: ...


def pick_packed(waiting: Sequence[Waiting], max_rows: int, max_tokens: int) -> list[int]:
    """Indexes of the next batch among ``waiting`` (oldest first), for a device without padding.

    The oldest is always in it; the others follow in their order while they share its adapter and
    the sum of tokens stays within ``max_tokens``. A context longer than that goes alone.
    """
    chosen: list[int] = []
    tokens = 0
    for index, each in enumerate(waiting):
        if each.adapter != waiting[0].adapter:
            continue
        if chosen and (len(chosen) == max_rows or tokens + each.tokens > max_tokens):
            break
        chosen.append(index)
        tokens += each.tokens
    return chosen


def pick_padded(waiting: Sequence[Waiting], max_rows: int, max_tokens: int) -> list[int]:
    """The same for a device that pads every context to the longest.

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
