"""Packed training batches: one policy prefix, then many events that see it and themselves only.

Positions restart after the prefix for every event, so a packed row computes for each event exactly
what the plain prompt would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerFast

from moderation_tools.training.tiny import constants as text
from moderation_tools.training.tiny.cases import Case
from moderation_tools.training.tiny.lexicon import category_of
from moderation_tools.training.tiny.model import SLIDING_WINDOW
from moderation_tools.training.tiny.prompt import event_text, prefix_text
from moderation_tools.training.tiny.rubrics import DrawnRubric
from moderation_tools.training.tiny.vocabulary import Vocabulary
from worker.guard.context import JUDGED_MARK
from worker.guard.nemotron35 import BUILTIN

IGNORED = -100
_PREFIX, _PADDING = -1, -2
LABELS = ("target", "sort", "flag", "named", "meaning", "head", "role", "previous")


@dataclass
class Row:
    """One packed row; all lists have one entry a token.

    ``target`` is the token to predict *at* this position. ``flag`` is 0 no word to find, 1 breaks
    the rubric on the user side, 2 on the response side. ``named`` and ``head`` are base rows: the
    category a word calls for, and the first word of the bullet a prefix word stands in. ``role`` is
    1 for a prefix word that is looked for, 2 in the allowed list, 0 for any other prefix token;
    ``previous`` is the base row of the token before. ``sort`` says what a target is, for the log:
    0 a label, 1 any other part of an answer, 2 a part of an exercise.
    """

    tokens: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    event: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    flag: list[int] = field(default_factory=list)
    named: list[int] = field(default_factory=list)
    meaning: list[int] = field(default_factory=list)
    head: list[int] = field(default_factory=list)
    role: list[int] = field(default_factory=list)
    previous: list[int] = field(default_factory=list)
    sort: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """Padded tensors of shape (rows, tokens), and masks (rows, 1, tokens, tokens) by layer type."""

    tensors: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    images: list[Case]
    modes: list[int]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]


class Packer:
    """Turns cases into rows; knows the token ids that carry meaning."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        ids = vocabulary.ids
        bases = {name: index for index, name in enumerate(vocabulary.base_names)}
        self._bullet = ids[text.BULLET]
        self._allowed = ids[text.POLICY_MARKS[2]]
        self._response = ids[text.RESPONSE]
        self._judged = ids[f"\n{JUDGED_MARK}\n"]
        self._image = ids["<image_soft_token>"]
        self._labels = {ids[" safe"], ids[" unsafe"]}
        self._constant = {
            index
            for index, form in enumerate(vocabulary.form)
            if vocabulary.form_names[form] in ("constant", "line")
        }
        self._meaning = {bases[word]: bases[name] for word, name in category_of().items()}
        self._meaning |= {bases[name]: bases[name] for name in BUILTIN}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, nothing added."""
        if not texts:
            return []
        encoded: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)[
            "input_ids"
        ]
        return encoded

    def row(
        self,
        rubric: DrawnRubric,
        cases: Sequence[Case],
        closing: Callable[[Case], str],
        answer: Callable[[Case], str],
        budget: int,
        seen: Callable[[Case], list[int]] | None = None,
    ) -> tuple[Row, list[Case]]:
        """Pack cases of one rubric until ``budget`` tokens are full; also the cases taken in.

        ``seen`` names the tokens that stand in for an image's soft tokens.
        """
        row = Row()
        (prefix,) = self.encode([prefix_text(rubric.kwargs)])
        self._append(row, prefix, 0, _PREFIX, [IGNORED] * len(prefix))
        self._describe(row, prefix, rubric)
        taken: list[Case] = []
        texts = [part for case in cases for part in (event_text(case), closing(case), answer(case))]
        parts = self.encode(texts)
        for index, case in enumerate(cases):
            content, close, said = parts[3 * index : 3 * index + 3]
            if seen is not None and case.image is not None:
                at = content.index(self._image)
                shown = seen(case)
                content = [*content[:at], *shown, *content[at + len(shown) :]]
            length = len(content) + len(close) + len(said)
            if taken and len(row.tokens) + length > budget:
                continue
            targets = [IGNORED] * (len(content) + len(close) - 1) + [*said, IGNORED]
            self._append(row, content + close + said, len(prefix), len(taken), targets)
            self._flag(row, content, case, len(row.tokens) - length)
            row.sort[-len(said) - 1 : -1] = [int(token not in self._labels) for token in said]
            taken.append(case)
        return row, taken

    def recite(self, row: Row, phrases: Sequence[str]) -> None:
        """Append an event that copies ``phrases`` out of the prefix, in an order not asked for."""
        label, comma, *parts = self.encode(
            [text.CATEGORY_LABEL, ",", *(f" {phrase}" for phrase in phrases)]
        )
        tokens, targets = list(label), [IGNORED] * len(label)
        for part in parts:
            tokens += [*part, *comma]
            targets += [*part[1:], *comma, IGNORED]
        self._exercise(row, tokens, targets)

    def _exercise(self, row: Row, tokens: list[int], targets: list[int]) -> None:
        self._append(row, tokens, row.event.count(_PREFIX), row.event[-1] + 1, targets)
        row.sort[-len(tokens) :] = [2] * len(tokens)

    def _append(
        self, row: Row, tokens: list[int], start: int, event: int, targets: list[int]
    ) -> None:
        count = len(tokens)
        row.tokens += tokens
        row.position += range(start, start + count)
        row.event += [event] * count
        row.target += targets
        row.flag += [IGNORED] * count
        row.named += [IGNORED] * count
        row.meaning += [IGNORED] * count
        row.head += [IGNORED] * count
        row.role += [IGNORED] * count
        row.sort += [IGNORED] * count
        bases = [self._vocabulary.base[token] for token in tokens]
        row.previous += [IGNORED, *bases[:-1]]

    def _describe(self, row: Row, prefix: list[int], rubric: DrawnRubric) -> None:
        vocabulary = self._vocabulary
        first, role = IGNORED, 0
        for index, token in enumerate(prefix):
            row.role[index] = 0
            if token == self._bullet:
                first = vocabulary.base[prefix[index + 1]]
                role = role or 1
            elif token in self._constant:
                first, role = IGNORED, 2 if token == self._allowed else 0
            else:
                row.head[index] = first
                word = vocabulary.base_names[vocabulary.base[token]]
                sought = role == 1 and word in rubric.active
                row.role[index] = role if sought or role == 2 else 0

    def _flag(self, row: Row, content: list[int], case: Case, at: int) -> None:
        vocabulary = self._vocabulary
        sides = {1: {*case.image_words, *case.user_words}, 2: {*case.response_words}}
        calls = dict(case.calls)
        phrases = self.encode([f" {name}" for name in case.categories])
        firsts = {
            phrase: vocabulary.base[tokens[0]]
            for phrase, tokens in zip(case.categories, phrases, strict=True)
        }
        judged = content.index(self._judged) if self._judged in content else -1
        answered = content.index(self._response) if self._response in content else len(content)
        for index, token in enumerate(content):
            base = vocabulary.base[token]
            if base in self._meaning:
                row.meaning[at + index] = self._meaning[base]
            side = 2 if index > answered else 1
            word = vocabulary.base_names[base]
            hit = index > judged and word in sides[side]
            row.flag[at + index] = side if hit else 0
            if hit:
                row.named[at + index] = firsts[calls[word]]


def collate(
    rows: Sequence[Row], images: Sequence[Case], padding: int, modes: Sequence[int] = ()
) -> Batch:
    """Pad rows to one length and build the float masks (0 sees, -inf does not)."""
    length = max(len(row.tokens) for row in rows)

    def padded(name: str, value: int) -> torch.Tensor:
        lists = [getattr(row, name) for row in rows]
        return torch.tensor([each + [value] * (length - len(each)) for each in lists])

    tensors = {
        "tokens": padded("tokens", padding),
        "position": padded("position", 0),
        "event": padded("event", _PADDING),
    } | {name: padded(name, IGNORED) for name in LABELS}
    event, position = tensors["event"], tensors["position"]
    order = torch.arange(length)
    causal = order[None, :, None] >= order[None, None, :]
    same = event[:, :, None] == event[:, None, :]
    sees = causal & (same | (event[:, None, :] == _PREFIX))
    near = position[:, :, None] - position[:, None, :] < SLIDING_WINDOW
    return Batch(
        tensors,
        {"full_attention": _additive(sees), "sliding_attention": _additive(sees & near)},
        list(images),
        list(modes),
    )


def see_images(batch: Batch, image_token: int) -> None:
    """Let the soft tokens of one image see each other in both directions, as Gemma 3 does."""
    soft = batch["tokens"] == image_token
    event = batch["event"]
    block = soft[:, :, None] & soft[:, None, :] & (event[:, :, None] == event[:, None, :])
    for mask in batch.masks.values():
        mask.masked_fill_(block[:, None], 0.0)


def _additive(sees: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(sees.shape)
    return mask.masked_fill_(~sees, float("-inf"))[:, None]
