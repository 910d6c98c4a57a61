"""Greedy decoding of cases with the real classes, on the real template, and reading the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Gemma3ForConditionalGeneration

from moderation_tools.training.tiny import constants as text
from moderation_tools.training.tiny.cases import Case
from moderation_tools.training.tiny.prompt import TURN_CLOSE

_GRAMMAR = re.compile(
    r"(?:<think>\n(?P<trace>.+?)\n\n\n</think>)?"
    r"User Safety: (?P<user>safe|unsafe)"
    r"(?:\nResponse Safety: (?P<response>safe|unsafe))?"
    r"(?:\nSafety Categories: (?P<categories>[^\n]+))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Answer:
    """A decoded answer; ``well_formed`` is false where it breaks the grammar or never ended."""

    raw: str
    well_formed: bool
    user: str = ""
    response: str | None = None
    categories: tuple[str, ...] = ()
    trace: str = ""


def read_answer(raw: str, case: Case) -> Answer:
    """The parts of a decoded answer, strictly by the grammar ``case`` asked for."""
    ended = raw.endswith(TURN_CLOSE)
    match = _GRAMMAR.fullmatch(raw.removesuffix(TURN_CLOSE))
    if not ended or match is None:
        return Answer(raw, well_formed=False)
    trace, user, response, listed = match.group("trace", "user", "response", "categories")
    wants_names = case.kwargs["request_categories"] == text.CATEGORIES
    well_formed = (
        (trace is not None) == case.thinks
        and (response is not None) == (case.response is not None)
        and (listed is not None) == (wants_names and "unsafe" in (user, response))
    )
    names = tuple(listed.split(", ")) if listed else ()
    return Answer(raw, well_formed, user, response, names, trace or "")


@torch.inference_mode()
def decode(
    model: Gemma3ForConditionalGeneration,
    processor: Any,
    cases: Sequence[Case],
    batch: int = 48,
) -> list[Answer]:
    """Answers in the order of ``cases``; batches are left-padded, without a cached prefix."""
    prompts = [
        processor.apply_chat_template(
            case.messages(), tokenize=False, add_generation_prompt=True, **case.kwargs
        )
        for case in cases
    ]
    order = sorted(
        range(len(cases)),
        key=lambda index: (
            cases[index].image is not None, cases[index].thinks, len(prompts[index])
        ),
    )  # fmt: skip
    answers: dict[int, Answer] = {}
    groups: list[list[int]] = []
    for index in order:
        same = groups and _alike(cases[groups[-1][0]], cases[index])
        if same and len(groups[-1]) < batch:
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        shown = [cases[index].image for index in group]
        inputs = processor(
            text=[prompts[index] for index in group],
            images=[[spec.draw()] for spec in shown if spec is not None] or None,
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        )
        limit = 72 if cases[group[0]].thinks else 32
        output = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
        said = output[:, inputs["input_ids"].shape[1] :]
        for index, tokens in zip(group, said.tolist(), strict=True):
            raw = processor.decode([token for token in tokens if token != 0])
            answers[index] = read_answer(raw, cases[index])
    return [answers[index] for index in range(len(cases))]


def _alike(one: Case, other: Case) -> bool:
    return (one.image is None) == (other.image is None) and one.thinks == other.thinks
