"""Forward passes over contexts of different lengths, padded on the left, and going on from them.

Rows are padded on the left from the first slot and end together, so the kept slots (all but the
last ``keep``) hold no padding behind a token and a row's sliding window stays in place. That makes
going on exact for Gemma 3 (transformers 5.17), below and above its window: attention masks count
slots. Images are whole in the kept part; their tokens attend both ways there, and text behind them
looks back as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    pass  # MOVED
import copy

from transformers import DynamicCache

# Forward passes over contexts of different lengths, padded on the left.
#
# Padding from the first slot is exact for Gemma 3 (transformers 5.17), below and above the sliding
# window and with images; padding between a cached prefix and tokens that are gone on from is not.
# So
# every row here starts with its padding; ``prefix.Prefix`` goes on from what was computed.


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


Draft = Callable[[Sequence[int]], Sequence[tuple[int, ...]]]
"""From the ids written so far to texts that may follow; whoever computes them may ignore it."""


def no_draft(_: Sequence[int]) -> Sequence[tuple[int, ...]]:
    """Nothing is likely to follow (a ``Draft``)."""
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


class Prefix:
    """Keys and values of ``contexts``, all but their last slots; never written to again.

    A row may be gone on from any number of times, with any context that shares its kept tokens.
    """

    def __init__(self, model: Any, contexts: Sequence[Context], pad: int, cache: Any) -> None:
        self._model, self._pad, self._cache = model, pad, cache
        width = max(len(context) for context in contexts)
        self._offsets = [width - len(context) for context in contexts]
        self._kept: int = cache.get_seq_length()

    @classmethod
    def compute(
        cls, model: Any, contexts: Sequence[Context], pad: int, keep: int
    ) -> tuple[Prefix, torch.Tensor]:
        """The prefix without the last ``keep`` slots, and their logits: (rows, keep, vocabulary).

        Every layer holds every slot of the batch while the prefix lives, sliding layers too.
        """
        cache = DynamicCache(config=model.config)
        cache.activate_past_recording()  # else a window that is full could not be cut
        logits = last_logits(model, contexts, pad, keep, cache)
        cache.crop(-logits.shape[1])
        for layer in cache.layers:
            if getattr(layer, "record_past", False):
                layer.record_past = False
        return cls(model, contexts, pad, cache), logits

    def width(self, row: int, context: Context) -> int:
        """Slots that a context takes in this row; rows of one width can be written together."""
        return self._offsets[row] + len(context)

    def inputs(self, rows: Sequence[int], contexts: Sequence[Context]) -> dict[str, Any]:
        """Model inputs that go on with ``contexts`` in ``rows`` (repeats allowed), padded right.

        The mask covers the kept slots too: (rows, kept + new); ids and positions only the new ones.

        Raises:
            ValueError: an image's tokens are among the new ones.
        """
        width = max(self.width(row, each) for row, each in zip(rows, contexts, strict=True))
        ids = torch.full((len(rows), width), self._pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, (row, context) in enumerate(zip(rows, contexts, strict=True)):
            start, end = self._offsets[row], self.width(row, context)
            if any(context.types[max(self._kept - start, 0) :]):
                raise ValueError("an image's tokens can only be computed with the whole context")
            ids[place, start:end] = torch.tensor(context.ids)
            mask[place, start:end] = 1
        device = self._model.device
        return {
            "input_ids": ids[:, self._kept :].to(device),
            "attention_mask": mask.to(device),
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, self._kept :].to(device),
            "past_key_values": self._fork(rows),
        }

    @torch.inference_mode()
    def logits_of(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> list[torch.Tensor]:
        """Per context the logits of its last ``count`` tokens: (count, vocabulary) each."""
        inputs = self.inputs(rows, contexts)
        ends = [
            self.width(row, context) - self._kept
            for row, context in zip(rows, contexts, strict=True)
        ]
        spans = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
        wanted = sorted({slot for span in spans for slot in span})
        places = torch.tensor(wanted, device=self._model.device)
        logits = self._model(**inputs, logits_to_keep=places, use_cache=True).logits
        order = {slot: n for n, slot in enumerate(wanted)}
        return [logits[n, [order[slot] for slot in span]] for n, span in enumerate(spans)]

    def write(
        self,
        rows: Sequence[int],
        contexts: Sequence[Context],
        budgets: Sequence[int],
        writing: Writing,
        drafts: Sequence[Draft] = (),
    ) -> list[Written]:
        """Greedy text behind every context; those that end in one slot are written together."""
        written: dict[int, Written] = {}
        widths = [self.width(row, context) for row, context in zip(rows, contexts, strict=True)]
        for width in sorted(set(widths)):
            same = [n for n, each in enumerate(widths) if each == width]
            stream = GreedyStream(
                self._model,
                [contexts[n] for n in same],
                [budgets[n] for n in same],
                pad=self._pad,
                writing=writing,
                prefix=self,
                prefix_rows=[rows[n] for n in same],
            )
            written.update(zip(same, stream.run(), strict=True))
        return [written[n] for n in range(len(rows))]

    def known(self, row: int) -> None:
        """Nothing outlives the batch."""

    def _fork(self, rows: Sequence[int]) -> DynamicCache:
        """A cache to write on. Layers replace their tensors and never change them, so rows that
        are all taken are shared, and others copied."""
        forked = copy.copy(self._cache)
        forked.layers = [copy.copy(layer) for layer in self._cache.layers]
        if list(rows) != list(range(len(self._offsets))):
            forked.batch_select_indices(torch.tensor(rows, device=self._model.device))
        return forked
