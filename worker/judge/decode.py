"""Forward passes over contexts of different lengths, padded on the left.

Padding from the first slot is exact for Gemma 3 (transformers 5.17), below and above the sliding
window and with images; padding between a cached prefix and tokens that are gone on from is not. So
every row here starts with its padding; ``prefix.Prefix`` goes on from what was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from worker.judge.prefix import Prefix


@dataclass(frozen=True)
class Context:
    """One tokenised context. ``pixels`` is (1, 3, height, width), None without an image.

    ``types`` marks the image's soft tokens with 1; they attend to each other both ways. The first
    ``policy`` tokens are the same for every event of its policy; ``digest`` is the image's.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] = ()
    pixels: torch.Tensor | None = None
    policy: int = 0
    digest: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def extended(self, ids: Sequence[int]) -> Context:
        """The same context with more text behind it."""
        types = (*self.types, *([0] * len(ids))) if self.types else ()
        return Context((*self.ids, *ids), types, self.pixels, self.policy, self.digest)


def chunks(contexts: Sequence[Context], max_rows: int, max_tokens: int) -> Iterator[list[int]]:
    """Indexes of contexts that fit one forward together, padding counted; longest first."""
    order = sorted(range(len(contexts)), key=lambda index: -len(contexts[index]))
    chunk: list[int] = []
    for index in order:
        width = len(contexts[chunk[0]]) if chunk else len(contexts[index])
        if chunk and (len(chunk) == max_rows or width * (len(chunk) + 1) > max_tokens):
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def collate(contexts: Sequence[Context], pad: int, device: torch.device) -> dict[str, Any]:
    """Model inputs: (rows, width) ids, mask, positions and types; images in row order."""
    width = max(len(context) for context in contexts)
    ids = torch.full((len(contexts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    types = torch.zeros_like(ids)
    for row, context in enumerate(contexts):
        ids[row, width - len(context) :] = torch.tensor(context.ids)
        mask[row, width - len(context) :] = 1
        if context.types:
            types[row, width - len(context) :] = torch.tensor(context.types)
    inputs: dict[str, Any] = {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device),
    }
    pixels = [context.pixels for context in contexts if context.pixels is not None]
    if pixels:
        inputs["token_type_ids"] = types.to(device)
        inputs["pixel_values"] = torch.cat(pixels).to(device)
    return inputs


@torch.inference_mode()
def last_logits(
    model: Any, contexts: Sequence[Context], pad: int, keep: int, cache: Any = None
) -> torch.Tensor:
    """Logits of the last ``keep`` positions of every context: (rows, keep, vocabulary).

    ``cache`` is an empty one to fill, None to keep nothing.
    """
    inputs = collate(contexts, pad, model.device)
    keep = min(keep, inputs["input_ids"].shape[1])
    if cache is not None:
        inputs["past_key_values"] = cache
    logits: torch.Tensor = model(**inputs, logits_to_keep=keep, use_cache=cache is not None).logits
    return logits


@dataclass
class Written:
    """What greedy decoding wrote: token ids, the log-probability of each, and how it ended.

    ``ended`` is ``stop`` (end of turn), ``text`` (the caller's condition), ``length`` (budget),
    ``not_finite``, or "" while it is being written. ``labels`` holds, per token, the logits of the
    two label tokens (safe, unsafe) at its position.
    """

    budget: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    labels: list[tuple[float, float]] = field(default_factory=list)
    ended: str = ""


@dataclass(frozen=True)
class Writing:
    """How greedy text is written: the tokens that ``stop`` it, the two ``labels`` (safe, unsafe),
    and ``finished``, which ends a row early when it is true after one of its tokens."""

    stop: frozenset[int]
    labels: tuple[int, int]
    finished: Callable[[Written], bool] = lambda _: False


Guess = Callable[[Sequence[int]], Sequence[tuple[int, ...]]]
"""From the ids written so far to texts that may follow; whoever computes them may ignore it."""


def no_guess(_: Sequence[int]) -> Sequence[tuple[int, ...]]:
    """Nothing is likely to follow (a ``Guess``)."""
    return ()


def write_step(logits: torch.Tensor, rows: Sequence[Written], writing: Writing) -> list[int]:
    """Write the likeliest token of each row of ``logits`` (rows, vocabulary); returns them all."""
    finite = torch.isfinite(logits).all(-1).tolist()
    tokens = logits.argmax(-1)
    chosen = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0].tolist()
    labels = logits[:, list(writing.labels)].tolist()
    following: list[int] = tokens.tolist()
    for place, (written, token) in enumerate(zip(rows, following, strict=True)):
        if not finite[place]:
            written.ended = "not_finite"
        elif token in writing.stop:
            written.ended = "stop"
        else:
            written.ids.append(token)
            written.logprobs.append(chosen[place])
            written.labels.append((labels[place][0], labels[place][1]))
            if writing.finished(written):
                written.ended = "text"
            elif len(written.ids) >= written.budget:
                written.ended = "length"
    return following


class GreedyStream:
    """Greedy decoding of several contexts in lock-step, one token a step.

    The rows of ``written`` keep their order; a row that has ended leaves the batch. With a
    ``prefix``, context n goes on from its row ``prefix_rows[n]``.

    Raises:
        ValueError: contexts would not end in the same slot behind the prefix: padding between
            tokens would move the sliding window.
    """

    def __init__(
        self,
        model: Any,
        contexts: Sequence[Context],
        budgets: Sequence[int],
        *,
        pad: int,
        writing: Writing,
        prefix: Prefix | None = None,
        prefix_rows: Sequence[int] = (),
    ) -> None:
        if prefix is not None:
            widths = {prefix.width(row, c) for row, c in zip(prefix_rows, contexts, strict=True)}
            if len(widths) > 1:
                raise ValueError("contexts written together must end in the same slot")
        self._model, self._writing = model, writing
        self._contexts: Sequence[Context] = contexts
        self._pad = pad
        self._prefix, self._prefix_rows = prefix, prefix_rows
        self._cache: Any = None
        self._mask = torch.empty(0)
        self._next = torch.empty(0)
        self.written = [Written(budget) for budget in budgets]
        self._rows = list(range(len(contexts)))

    @property
    def active(self) -> bool:
        return bool(self._rows)

    def drop(self, row: int) -> None:
        """Stop writing a row nobody waits for any more."""
        if not self.written[row].ended:
            self.written[row].ended = "length"

    @torch.inference_mode()
    def step(self) -> list[int]:
        """Write one token in every active row; returns the rows that have ended with it."""
        ended = self._leave()
        if not self._rows:
            return ended
        logits = (self._prefill() if self._cache is None else self._decode()).float()
        tokens = write_step(logits, [self.written[row] for row in self._rows], self._writing)
        self._next = torch.tensor(tokens, device=logits.device)[:, None]
        return ended + self._leave()

    def run(self) -> list[Written]:
        """Write everything."""
        while self.active:
            self.step()
        return self.written

    def _prefill(self) -> torch.Tensor:
        contexts = [self._contexts[row] for row in self._rows]
        if self._prefix is None:
            inputs = collate(contexts, self._pad, self._model.device)
        else:
            inputs = self._prefix.inputs([self._prefix_rows[row] for row in self._rows], contexts)
            self._prefix = None
        self._mask = inputs["attention_mask"]
        output = self._model(**inputs, logits_to_keep=1, use_cache=True)
        self._cache = output.past_key_values
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def _decode(self) -> torch.Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._rows), 1)], 1)
        output = self._model(
            input_ids=self._next,
            attention_mask=self._mask,
            position_ids=self._mask.sum(1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def _leave(self) -> list[int]:
        """Take ended rows out of the batch (cache, mask and next tokens)."""
        stay = [place for place, row in enumerate(self._rows) if not self.written[row].ended]
        if len(stay) == len(self._rows):
            return []
        ended = [row for row in self._rows if self.written[row].ended]
        self._rows = [self._rows[place] for place in stay]
        if self._rows and self._cache is not None:
            index = torch.tensor(stay, device=self._next.device)
            self._cache.batch_select_indices(index)
            self._mask, self._next = self._mask[index], self._next[index]
        elif not self._rows:
            self._cache = None
        return ended
