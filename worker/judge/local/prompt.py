"""From a request to the tokens in front of the model: sanitised, folded, rendered, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from PIL import Image

from worker.codes import UndecidedReason
from worker.contracts.verdict import ContextUse
from worker.errors import ConfigurationError, Undecided
from worker.guard.context import fold_context
from worker.guard.sanitise import Sanitiser
from worker.guard.template import CATEGORIES_SWITCH
from worker.images import JudgeImage
from worker.judge.local.loading import Checkpoint, encoder
from worker.judge.local.segments import Pieces, cut
from worker.judge.reference.decode import Context
from worker.judgement import JudgeRequest, Rubric, RubricMode
from worker.text.characters import slices
from worker.text.recent import Recent

ANSWER_TOKENS = 48
"""Room for the category line (and for a whole answer where it is decoded)."""
POLICY_ANSWER_TOKENS = 128
"""The same under a free policy, whose categories are whole sentences."""
LABEL_TOKENS = 32
"""Room for the constant text around the labels and for the floor's name."""
MIN_EVENT = 256
"""Tokens that a policy has to leave for an event and the constant text behind it."""
PIECE = 8_192
"""Characters that are tokenised before it is asked again whether a text can still fit."""
_AT_A_CUT = 8
"""Tokens by which a piece alone may differ from the same piece in its text."""
_MOST_SHAPES = 1024
NO_TEXT = "(image without text)"
"""Stands for the missing text of an image: the model refuses an image without any."""


@dataclass(frozen=True)
class Picture:
    """An image as the vision tower takes it, and the digest of its content."""

    pixels: torch.Tensor
    digest: str


class _Shape(NamedTuple):
    """What a prompt's constant text depends on."""

    mode: RubricMode
    text: str | None
    response: bool
    image: bool
    think: bool


@dataclass(frozen=True)
class Prepared:
    """One request, ready to be rendered. ``names`` are the control strings that were sanitised."""

    user: str
    response: str | None
    rubric: Rubric
    picture: Picture | None
    used: ContextUse
    names: tuple[str, ...]
    context: Context = field(repr=False)


def answer_budget(rubric: Rubric) -> int:
    """Tokens an answer may take under a rubric."""
    return POLICY_ANSWER_TOKENS if rubric.mode == "policy" else ANSWER_TOKENS


class Prompter:
    """Prepares requests for one checkpoint. Safe from several threads; no model runs here."""

    def __init__(self, checkpoint: Checkpoint, *, context_budget: int) -> None:
        self._checkpoint, self._context_budget = checkpoint, context_budget
        self._encode = encoder(checkpoint.tokenizer)
        self._encode_context = Recent(self._encode)
        tokenizer = checkpoint.tokenizer
        self._sanitise = Sanitiser(
            tokenizer.get_added_vocab(), self._encode, harmless=_harmless(tokenizer)
        )
        self._longest = max(len(piece) for piece in tokenizer.get_vocab())
        self._cut: dict[_Shape, Pieces | None] = {}
        self._image_id = checkpoint.model.config.image_token_id

    def prepare(self, request: JudgeRequest) -> Prepared:
        """Sanitise, fold in what fits of the earlier turns, render and tokenise; blocking.

        Raises:
            Undecided: ``context_too_long`` where the judged turn does not fit whole, or
                ``empty_message`` where there is neither text nor image.
        """
        room = self._room(request.rubric)
        self._refuse_hopeless(request, room)
        user, found = self._sanitise(request.user.strip())
        response = None
        if request.response is not None and request.response.strip():
            response, more = self._sanitise(request.response.strip())
            found |= more
        if not user:
            if request.image is None:
                raise Undecided(UndecidedReason.EMPTY_MESSAGE, field="messages")
            user = NO_TEXT
        picture = self._picture(request.image) if request.image is not None else None
        context = self._context(user, response, request.rubric, picture)
        if len(context) > room:
            raise self._too_long()
        turns, more = self._earlier(request.earlier, room - len(context))
        folded = user
        while turns:
            folded = fold_context(turns, user)
            longer = self._context(folded, response, request.rubric, picture)
            if len(longer) <= room and len(longer) - len(context) <= self._context_budget:
                context = longer
                break
            turns, folded = turns[1:], user
        omitted = len(request.earlier) - len(turns)
        used = ContextUse(included=len(turns), omitted=omitted)
        names = tuple(sorted(found | more))
        return Prepared(folded, response, request.rubric, picture, used, names, context)

    def thinking(self, prepared: Prepared) -> Context:
        """The same request with the prompt that asks for a reasoning trace."""
        return self._context(
            prepared.user, prepared.response, prepared.rubric, prepared.picture, think=True
        )

    def trace_room(self, context: Context, rubric: Rubric) -> int:
        """Tokens a trace may take behind a thinking context."""
        return self._room(rubric) - len(context)

    def _room(self, rubric: Rubric) -> int:
        return self._checkpoint.max_context - answer_budget(rubric) - LABEL_TOKENS

    def _too_long(self) -> Undecided:
        limit = self._checkpoint.max_context
        return Undecided(
            UndecidedReason.CONTEXT_TOO_LONG, detail=f"the judged turn exceeds {limit} tokens"
        )

    def _refuse_hopeless(self, request: JudgeRequest, room: int) -> None:
        """Refuse what cannot fit before more work is spent on it than on what fits."""
        texts = [request.user.strip(), (request.response or "").strip()]
        if sum(map(len, texts)) > room * self._longest:
            raise self._too_long()
        for text in texts:
            if self._exceeds(text, room):
                raise self._too_long()

    def _exceeds(self, text: str, most: int) -> bool:
        """Whether a text takes surely more than ``most`` tokens: nothing behind them is tokenised.

        Told by pieces, of which each may take a few tokens more than it does in the whole.
        """
        if len(text) <= PIECE:
            return False
        left = most
        for piece in slices(text, PIECE):
            left -= max(0, len(self._encode(piece)) - _AT_A_CUT)
            if left < 0:
                return True
        return False

    def _earlier(
        self, earlier: Sequence[tuple[str, str]], room: int
    ) -> tuple[list[tuple[str, str]], frozenset[str]]:
        """The newest turns that may fit, oldest first, sanitised; and the control strings found."""
        budget = min(self._context_budget, room)
        turns: list[tuple[str, str]] = []
        found: frozenset[str] = frozenset()
        for role, text in reversed(earlier):
            if len(text) > budget * self._longest or self._exceeds(text, budget):
                break
            sanitised, names = self._sanitise(text.strip())
            budget -= len(self._encode(f"{role}: {sanitised}\n"))
            if budget < 0:
                break
            turns.insert(0, (role, sanitised))
            found |= names
        return turns, found

    def policy_ids(self, rubric: Rubric) -> tuple[int, ...]:
        """The tokens that every event under a rubric begins with; empty where they differ."""
        pieces = self._pieces(_Shape(rubric.mode, rubric.text, False, False, False))
        return pieces.head if pieces is not None else ()

    def check_room(self, rubric: Rubric, ids: Sequence[int]) -> None:
        """Refuse a policy behind which hardly an event would fit.

        Raises:
            ConfigurationError: it takes more than the context leaves.
        """
        room = self._room(rubric) - len(ids)
        if room < MIN_EVENT:
            raise ConfigurationError(
                f"the policy's text takes {len(ids)} tokens and leaves {max(room, 0)} of "
                f"judge.max_context = {self._checkpoint.max_context}; shorten the policy or raise "
                "judge.max_context"
            )

    def _context(
        self,
        user: str,
        response: str | None,
        rubric: Rubric,
        picture: Picture | None,
        *,
        think: bool = False,
    ) -> Context:
        shape = _Shape(rubric.mode, rubric.text, response is not None, picture is not None, think)
        pieces = self._pieces(shape)
        if pieces is None:
            ids, policy = tuple(self._encode_context(self._render(shape, user, response))), 0
        else:
            own = self._encode_context(pieces.text(user, response))
            ids, policy = (*pieces.head, *own, *pieces.tail), len(pieces.head)
        if picture is None:
            return Context(ids, policy=policy)
        types = tuple(1 if token == self._image_id else 0 for token in ids)
        return Context(ids, types, picture.pixels, policy, picture.digest)

    def _pieces(self, shape: _Shape) -> Pieces | None:
        if shape not in self._cut:
            if len(self._cut) >= _MOST_SHAPES:  # policies come and go
                self._cut.clear()

            def render(user: str, response: str | None) -> str:
                return self._render(shape, user, response)

            image = self._checkpoint.processor.full_image_sequence if shape.image else ""
            self._cut[shape] = cut(render, self._encode, response=shape.response, image=image)
        return self._cut[shape]

    def _render(self, shape: _Shape, user: str, response: str | None) -> str:
        kwargs: dict[str, object] = {
            "enable_thinking": shape.think,
            "request_categories": CATEGORIES_SWITCH,
        }
        if shape.mode == "policy":
            kwargs["custom_policy"] = shape.text
        elif shape.text is not None:
            kwargs["custom_taxonomy"] = shape.text
        if not shape.image:
            return self._checkpoint.render(user, response, **kwargs)
        content = [{"type": "image"}, {"type": "text", "text": user}]
        processor = self._checkpoint.processor
        text = self._checkpoint.render(content, response, **kwargs)
        return text.replace(processor.boi_token, processor.full_image_sequence)

    def _picture(self, image: JudgeImage) -> Picture:
        """(1, 3, height, width) as the checkpoint's own image processor makes it; no crops."""
        picture = Image.frombytes("RGB", (image.width, image.height), image.rgb)
        processed = self._checkpoint.processor.image_processor(
            images=[picture], do_pan_and_scan=False, return_tensors="pt"
        )
        pixels: torch.Tensor = processed["pixel_values"]
        return Picture(pixels.to(self._checkpoint.model.dtype), image.sha256)


def _harmless(tokenizer: Any) -> set[int]:
    """The token for unknown text: it says nothing, and any text may hold it."""
    return {tokenizer.unk_token_id} if tokenizer.unk_token_id is not None else set()
