"""The labels of a batch of contexts, from the logits behind the answer's constant text.

For each context the constant text is appended and one forward gives, by causality, exactly the
logits that step-by-step decoding would see::

    prompt | User Safety: [?]                              without a response
    prompt | User Safety: [?] safe ⏎Response Safety: [?]    with one

``[?]`` is where ``safe`` and ``unsafe`` compete: P(unsafe) is the softmax over those two. The
response is read behind the user label that greedy decoding takes, so a user labelled unsafe costs
its response a second, short forward that goes on from the first. Where the constant text is not
what the model would have written (P below ``min_constant``), the answer is decoded greedily and
parsed instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from worker.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import ConfigurationError, Undecided
from worker.guard.answer import label_match, parse_answer, split_trace
from worker.guard.taxonomy import FLOOR
from worker.judge.local.requests import ScoreRequest
from worker.judge.reference.decode import Context, Draft, Prefix, Writing, Written
from worker.judgement import Side

# The constant text of an answer as token ids, and the two tokens that carry a label.

Encode = Callable[[str], Sequence[int]]

USER = "User Safety:"
RESPONSE = "\nResponse Safety:"
CATEGORIES = "\nSafety Categories:"


class AnswerTokens(NamedTuple):
    """Pieces whose concatenation is the token sequence of a whole answer.

    ``user + (safe,) + response + (unsafe,) + categories + floor`` spells
    ``User Safety: safe⏎Response Safety: unsafe⏎Safety Categories: Sexual (minor)``.
    ``comma`` stands between categories; ``stop`` ends an answer.
    """

    user: tuple[int, ...]
    safe: int
    unsafe: int
    response: tuple[int, ...]
    categories: tuple[int, ...]
    floor: tuple[int, ...]
    comma: tuple[int, ...]
    stop: frozenset[int]

    def label(self, label: Label) -> int:
        return self.unsafe if label == "unsafe" else self.safe

    def spell(self, user: Label, response: Label | None = None) -> tuple[int, ...]:
        """Token ids of the label lines."""
        spelled = (*self.user, self.label(user))
        if response is not None:
            spelled += (*self.response, self.label(response))
        return spelled


def answer_tokens(encode: Encode, stop: Sequence[int]) -> AnswerTokens:
    """Find the pieces in a tokenizer.

    Raises:
        ConfigurationError: a label is not one token of its own, or pieces merge across a seam.
    """
    user = tuple(encode(USER))
    safe = _rest(encode, USER, f"{USER} safe")
    unsafe = _rest(encode, USER, f"{USER} unsafe")
    if len(safe) != 1 or len(unsafe) != 1 or safe == unsafe:
        raise ConfigurationError(
            "tokenizer: ' safe' and ' unsafe' are not two single tokens after 'User Safety:'; "
            "use the checkpoint's own tokenizer"
        )
    lines = f"{USER} unsafe"
    response = _rest(encode, lines, f"{lines}{RESPONSE}")
    for label, token in (("safe", safe), ("unsafe", unsafe)):
        if _rest(encode, f"{lines}{RESPONSE}", f"{lines}{RESPONSE} {label}") != token:
            raise ConfigurationError(
                f"tokenizer: the label {label!r} is another token in the response line; "
                "use the checkpoint's own tokenizer"
            )
    named = f"{lines}{CATEGORIES}"
    return AnswerTokens(
        user=user,
        safe=safe[0],
        unsafe=unsafe[0],
        response=response,
        categories=_rest(encode, lines, named),
        floor=_rest(encode, named, f"{named} {FLOOR}"),
        comma=tuple(encode(",")),
        stop=frozenset(stop),
    )


def _rest(encode: Encode, start: str, whole: str) -> tuple[int, ...]:
    first, everything = tuple(encode(start)), tuple(encode(whole))
    if everything[: len(first)] != first:
        raise ConfigurationError(
            f"tokenizer: {start!r} is tokenised otherwise inside {whole!r}; "
            "use the checkpoint's own tokenizer"
        )
    return everything[len(first) :]


MIN_CONSTANT = 0.5
"""Above one half every constant token is the likeliest one, so greedy decoding writes it too."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one forward: rows, and tokens with padding."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class Sides:
    """Both labels of one context, and the tokens decoded for them."""

    user: Side
    response: Side | None
    tokens: int = 0


class Computed(Protocol):
    """Contexts that went through the model once, and what goes on from there.

    ``contexts`` are longer forms of the rows' own; a row may be gone on from any number of times.
    """

    def logits_of(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> list[torch.Tensor]:
        """Per context the logits of its last ``count`` tokens: (count, vocabulary) each."""
        ...

    def write(
        self,
        rows: Sequence[int],
        contexts: Sequence[Context],
        budgets: Sequence[int],
        writing: Writing,
        drafts: Sequence[Draft] = (),
    ) -> list[Written]:
        """Greedy text behind every context; ``drafts`` may save work and change none of it."""
        ...

    def known(self, row: int) -> object:
        """What a later request of the same event may go on from; None where nothing is kept."""
        ...


Chances = dict[int, float]
"""Log-probabilities of the answer's own tokens at one place; NaN where logits are not finite."""


class Labels:
    """What logits behind the constant text mean, whoever computed them."""

    def __init__(
        self, answer: AnswerTokens, tokenizer: Any, *, min_constant: float = MIN_CONSTANT
    ) -> None:
        self._answer, self._tokenizer = answer, tokenizer
        self._min_constant = min_constant
        asked = (*answer.user, *answer.response, answer.safe, answer.unsafe)
        self._asked = {token: place for place, token in enumerate(dict.fromkeys(asked))}

    def _chances(self, logits: Sequence[torch.Tensor]) -> list[list[Chances]]:
        """Of every context's logits (places, vocabulary) what labels are read from; on the host
        after one move, however many contexts there are."""
        columns = torch.tensor(list(self._asked), device=logits[0].device)
        picked = []
        for each in logits:
            wide = each.float()
            own = wide[:, columns] - torch.logsumexp(wide, -1, keepdim=True)
            finite = torch.isfinite(wide).all(-1, keepdim=True)
            picked.append(own.masked_fill(~finite, math.nan))
        rows: list[list[float]] = torch.cat(picked).tolist()
        places = iter(dict(zip(self._asked, row, strict=True)) for row in rows)
        return [list(itertools.islice(places, len(each))) for each in logits]

    def _competition(
        self, chances: Sequence[Chances], tail: tuple[int, ...], position: int
    ) -> tuple[Side, float] | None:
        """The side labelled at ``position``, and the probability that greedy text gets there.

        None where the logits are not finite. The constants counted are those since the last label.
        """
        answer = self._answer
        if any(math.isnan(each[answer.safe]) for each in chances):
            return None
        start = 0 if position == len(answer.user) else len(answer.user) + 1
        constants = sum(chances[i][tail[i]] for i in range(start, position))
        safe, unsafe = (chances[position][token] for token in (answer.safe, answer.unsafe))
        mass = math.exp(safe) + math.exp(unsafe)
        return side(safe, unsafe), math.exp(constants) * mass

    def _write(
        self,
        computed: Computed,
        asks: Sequence[ScoreRequest],
        indexes: Sequence[int],
        results: list[Sides | Undecided | None],
    ) -> None:
        """Decode whole answers where the constant text is improbable, and parse them."""
        lines = computed.write(
            indexes,
            [asks[index].context for index in indexes],
            [asks[index].category_budget for index in indexes],
            Writing(self._answer.stop, (self._answer.safe, self._answer.unsafe)),
        )
        for index, written in zip(indexes, lines, strict=True):
            try:
                results[index] = self._parsed(asks[index], written)
            except Undecided as error:
                results[index] = error

    def _parsed(self, ask: ScoreRequest, written: Written) -> Sides:
        if written.ended == "not_finite":
            raise not_finite()
        text = decode_text(self._tokenizer, written.ids)
        parsed = parse_answer(text, response=ask.response, rubric=ask.rubric)
        user = self._written_side(written, "User Safety", parsed.user)
        response = None
        if parsed.response is not None:
            response = self._written_side(written, "Response Safety", parsed.response)
        return Sides(user, response, len(written.ids))

    def _written_side(self, written: Written, field: str, label: Label) -> Side:
        """The score at the token that wrote the label.

        Raises:
            Undecided: it says safe in a spelling of its own, where unsafe was the likelier label.
        """
        text = decode_text(self._tokenizer, written.ids)
        _, answer = split_trace(text)
        start = len(text) - len(answer) + label_match(answer, field).start(1)
        position = 0
        while len(decode_text(self._tokenizer, written.ids[: position + 1])) <= start:
            position += 1
        scored = side(*written.labels[position])
        if scored.label == label:
            return scored
        if label == "safe":
            raise Undecided(
                UndecidedReason.MALFORMED_OUTPUT, detail="the label written is not the likelier one"
            )
        return Side(label=label, score=1.0)


class Labeller(Labels):
    """Reads labels with the plain model. Not thread-safe: it belongs to the device thread."""

    def __init__(
        self,
        model: Any,
        answer: AnswerTokens,
        tokenizer: Any,
        *,
        min_constant: float = MIN_CONSTANT,
    ) -> None:
        super().__init__(answer, tokenizer, min_constant=min_constant)
        self._model = model
        self.pad: int = tokenizer.pad_token_id or 0

    def asked(self, ask: ScoreRequest) -> Context:
        """The context with the text behind which its last label is read."""
        return ask.context.extended(self._tail(ask))  # type: ignore[no-any-return]

    def _tail(self, ask: ScoreRequest) -> tuple[int, ...]:
        answer = self._answer
        if not ask.response:
            return answer.user
        return (*answer.user, answer.safe, *answer.response)

    def label(self, asks: Sequence[ScoreRequest]) -> tuple[Prefix, list[Sides | Undecided]]:
        """Both sides of every context, or why there are none; order kept.

        The prefix has a row for each ask and goes on behind its context, whatever its labels.
        """
        results: list[Sides | Undecided | None] = [None] * len(asks)
        answer = self._answer
        tails = [self._tail(ask) for ask in asks]
        # One slot more than the tails: the last token of a context predicts the tail's first.
        keep = max(len(tail) for tail in tails) + 1
        contexts = [self.asked(ask) for ask in asks]
        prefix, logits = Prefix.compute(self._model, contexts, self.pad, keep)
        second: list[int] = []
        written: list[int] = []
        found = self._chances([logits[index, -len(tail) - 1 :] for index, tail in enumerate(tails)])
        for index, (ask, tail, own) in enumerate(zip(asks, tails, found, strict=True)):
            user = self._competition(own, tail, len(answer.user))
            response = self._competition(own, tail, len(tail)) if ask.response else None
            if user is None or (response is None and ask.response):
                results[index] = not_finite()
            elif user[1] < self._min_constant:
                written.append(index)
            elif response is None:
                results[index] = Sides(user[0], None)
            elif user[0].label == "unsafe":
                second.append(index)
                results[index] = Sides(user[0], None)
            elif response[1] < self._min_constant:
                written.append(index)
            else:
                results[index] = Sides(user[0], response[0])
        if second:
            written += self._second(prefix, asks, second, results)
        if written:
            self._write(prefix, asks, written, results)
        return prefix, [known(result) for result in results]

    def _second(
        self,
        prefix: Prefix,
        asks: Sequence[ScoreRequest],
        second: Sequence[int],
        results: list[Sides | Undecided | None],
    ) -> list[int]:
        """Responses behind a user labelled unsafe; returns those to be written instead."""
        answer, written = self._answer, []
        tail = (*answer.user, answer.unsafe, *answer.response)
        contexts = [asks[index].context.extended(tail) for index in second]
        logits = prefix.logits_of(second, contexts, [len(tail) + 1] * len(second))
        for index, own in zip(second, self._chances(logits), strict=True):
            response = self._competition(own, tail, len(tail))
            sides = results[index]
            assert isinstance(sides, Sides)
            if response is None:
                results[index] = not_finite()
            elif response[1] < self._min_constant:
                written.append(index)
            else:
                results[index] = Sides(sides.user, response[0])
        return written


def side(safe: float, unsafe: float) -> Side:
    """The side two label logits (or log-probabilities) describe; a tie is unsafe."""
    score = 1.0 / (1.0 + math.exp(min(safe - unsafe, 700.0)))
    return Side(label="unsafe" if unsafe >= safe else "safe", score=score)


def decode_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of token ids, nothing left out and nothing tidied."""
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def not_finite() -> Undecided:
    """Why there is no reading where a logit is NaN or infinite."""
    return Undecided(UndecidedReason.NOT_FINITE, detail="the model's logits are not finite")


def known(result: Sides | Undecided | None) -> Sides | Undecided:
    """A result that has been found by now."""
    assert result is not None
    return result
