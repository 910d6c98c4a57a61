"""Guards for the OpenAI-compatible test server: a tokenizer, and a model that is a table.

``TableWriter`` is a language model in the small: the probability of every whole answer is given,
and what is written next follows from them, token by token, greedily, with ``logit_bias`` heeded. So
log-probabilities, preferences and what stands behind them agree, as they do on a real server.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.support.openai_server import Body, Written, WrittenToken
from worker.guard.base import GuardModel, SideName

END = "<end>"
_PIECES = re.compile(r" ?[^\W\d_]+|\d|\s|[^\w\s]|_")
LEAST = 1e-9


class PieceTokenizer:
    """Words (with the blank in front of them), digits and signs; ids as they are met."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, piece: str) -> int:
        return self._ids.setdefault(piece, len(self._ids))

    def pieces(self, text: str) -> list[str]:
        return _PIECES.findall(text)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [self.id_of(piece) for piece in self.pieces(text)]}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        known = list(self._ids)
        return [known[each] for each in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.convert_ids_to_tokens(ids))


Answers = Callable[[Body], Mapping[str, float]]
"""Every answer to a request, and its probability."""
Prompt = Callable[[Sequence[Body], Mapping[str, Any]], str]
"""What a chat template renders of messages and switches."""


class TableWriter:
    """Writes the likeliest of the answers (see above); ``shows``: whether it has ``/tokenize``."""

    def __init__(self, answers: Answers, prompt: Prompt, *, shows: bool = True) -> None:
        self._answers, self._prompt = answers, prompt
        self._own = PieceTokenizer()
        self.tokenizer: Any = self._own if shows else None

    def prompt(self, messages: Sequence[Body], kwargs: Mapping[str, Any]) -> list[int]:
        ids: list[int] = self._own(self._prompt(messages, kwargs))["input_ids"]
        return ids

    def write(self, body: Body) -> Written:
        table = {
            (*self._own.pieces(text), END): probability
            for text, probability in self._answers(body).items()
        }
        bias = {int(token): value for token, value in (body.get("logit_bias") or {}).items()}
        tokens: list[WrittenToken] = []
        while not tokens or tokens[-1].text != END:
            here = tuple(each.text for each in tokens)
            chances: dict[str, float] = {}
            for answer, probability in table.items():
                if answer[: len(here)] == here:
                    following = answer[len(here)]
                    chances[following] = chances.get(following, 0.0) + probability
            total = sum(chances.values())
            logs = {each: math.log(max(value / total, LEAST)) for each, value in chances.items()}
            top = sorted(logs.items(), key=lambda each: -each[1])
            taken = max(logs, key=lambda each: logs[each] + bias.get(self._own.id_of(each), 0.0))
            tokens.append(WrittenToken(taken, logs[taken], tuple(top)))
        content = "".join(each.text for each in tokens[:-1])
        length = len(self.prompt(body["messages"], body.get("chat_template_kwargs") or {}))
        return Written(tuple(tokens), content, prompt_tokens=length)


def text_of(message: Body) -> str:
    """The text of a message, whatever stands beside it."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def asked(guard: GuardModel, body: Body) -> tuple[SideName, ...]:
    """The sides that a request asks a family about."""
    response = "a" if body["messages"][-1]["role"] == "assistant" else None
    return guard.conversations("a", response, ())[-1].labels


def spelled(
    guard: GuardModel, labels: Sequence[bool], names: Sequence[str] = (), *, trace: str = ""
) -> str:
    """A whole answer as a family's model writes it: unsafe or not, and the categories' spelling."""
    says = guard.spelling
    opening, closing = guard.trace_tags
    text = f"{opening}\n{trace}\n{closing}" if trace else ""
    for front, unsafe in zip((says.user, says.response), labels, strict=False):
        text += front + (says.unsafe if unsafe else says.safe)
    if names:
        text += says.categories + says.first + says.separators[0].join(names)
    return text


def written_name(guard: GuardModel, category: str) -> str:
    """How a family's answer names one of its own categories."""
    own = next(each for each in guard.categories if each.name == category)
    floor = next(each for each in guard.categories if each.name == guard.floor)
    return own.code if guard.spelling.floor == floor.code else own.name


def harmless(guard: GuardModel, body: Body) -> Mapping[str, float]:
    """The answers to what a model finds nothing in."""
    labels = asked(guard, body)
    return {
        spelled(guard, [unsafe] * len(labels)): 0.01 if unsafe else 0.99 for unsafe in (False, True)
    }


def played(guard: GuardModel) -> Answers:
    """A model of a family that finds its sample words, and is sure of it."""

    def answers(body: Body) -> Mapping[str, float]:
        labels = asked(guard, body)
        last = {each["role"]: text_of(each).casefold() for each in body["messages"]}
        texts = [last["user" if each == "user" else "assistant"] for each in labels]
        found = [
            [name for word, name in guard.sample_words.items() if word in text] for text in texts
        ]
        names = dict.fromkeys(written_name(guard, name) for each in found for name in each)
        harmful = spelled(guard, [bool(each) for each in found], tuple(names))
        mild = spelled(guard, [False] * len(labels))
        if harmful == mild:
            return harmless(guard, body)
        return {harmful: 0.98} | {mild: 0.01} | {spelled(guard, [True] * len(labels)): 0.01}

    return answers
