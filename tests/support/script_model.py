"""A model that writes a given text behind every prompt, token by token, with given confidence."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import DynamicCache


class ScriptModel:
    """Called like a transformers model; its cache holds the ids that it has seen.

    After ``mark`` + k tokens of ``script`` comes token k + 1; off the script it continues with the
    script's token at the same place. ``sharpness`` is the logit of the scripted token. (token,
    logit) pairs: ``rivals`` everywhere, ``after`` beside the script's last token, ``then`` behind
    the script.
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
        self.device, self.config = torch.device("cpu"), None
        self._vocabulary, self._mark, self._script = vocabulary, mark, list(script)
        self._sharpness, self._rivals = sharpness, rivals
        self._after, self._then = after, then

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        logits_to_keep: int | torch.Tensor = 1,
        past_key_values: Any = None,
        **_: Any,
    ) -> Any:
        count = input_ids.shape[1]
        cache = DynamicCache() if past_key_values is None else past_key_values
        seen_ids, _values = cache.update(*[input_ids[:, None, :, None]] * 2, 0)
        if isinstance(logits_to_keep, int):
            kept = list(range(count - logits_to_keep, count))
        else:
            kept = logits_to_keep.tolist()
        logits = torch.zeros(len(input_ids), len(kept), self._vocabulary)
        for row, history in enumerate(seen_ids[:, 0, :, 0].tolist()):
            for place, slot in enumerate(kept):
                seen = history[: len(history) - count + slot + 1]
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
