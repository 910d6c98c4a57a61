"""A model that writes a given text behind every prompt, token by token, with given confidence."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch


class _History:
    """The cache of a model whose only state is what was fed to it: one list of ids a row."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def batch_select_indices(self, index: torch.Tensor) -> None:
        self.rows = [self.rows[place] for place in index.tolist()]


class ScriptModel:
    """Called like a transformers model. After ``mark`` + k tokens of ``script`` comes token k + 1.

    Off the script it continues with the script's token at the same place. ``sharpness`` is the
    logit of the scripted token. (token, logit) pairs: ``rivals`` everywhere, ``after`` beside the
    script's last token, ``then`` behind the script.
    """

    def __init__(
        self,
        vocabulary: int,
        mark: int,
        script: Sequence[int],
        *,
        sharpness: float = 20.0,
        rivals: Sequence[tuple[int, float]] = (),
        after: Sequence[tuple[int, float]] = (),
        then: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.device = torch.device("cpu")
        self._vocabulary, self._mark, self._script = vocabulary, mark, list(script)
        self._sharpness, self._rivals = sharpness, rivals
        self._after, self._then = after, then

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        logits_to_keep: int = 1,
        past_key_values: Any = None,
        **_: Any,
    ) -> Any:
        rows = [list(row) for row in input_ids.tolist()]
        cache = past_key_values or _History([[] for _ in rows])
        cache.rows = [before + new for before, new in zip(cache.rows, rows, strict=True)]
        logits = torch.zeros(len(rows), logits_to_keep, self._vocabulary)
        for row, history in enumerate(cache.rows):
            for place in range(logits_to_keep):
                end = len(history) - logits_to_keep + place + 1
                seen = history[:end]
                if self._mark not in seen:
                    continue
                written = len(seen) - 1 - max(n for n, t in enumerate(seen) if t == self._mark)
                rivals = list(self._rivals)
                rivals += self._after if written == len(self._script) - 1 else ()
                rivals += self._then if written >= len(self._script) else ()
                for token, logit in rivals:
                    logits[row, place, token] = logit
                if written < len(self._script):
                    logits[row, place, self._script[written]] = self._sharpness
        return SimpleNamespace(logits=logits, past_key_values=cache)
