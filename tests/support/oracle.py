"""One context at a time, without padding, without our decoding: what every batch must equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from worker.guard.answer import split_categories
from worker.guard.taxonomy import FLOOR
from worker.judge.local.label_scores import AnswerTokens
from worker.judge.local.loading import Checkpoint
from worker.judge.local.prompt import Prompter, answer_budget
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import Context
from worker.judgement import CategoryScore, JudgeRequest, Side
from worker.policy.floor import FLOOR_THRESHOLD


@torch.inference_mode()
def logits(model: Any, context: Context, ids: Sequence[int] = ()) -> torch.Tensor:
    """Full forward over one context and more tokens: (length, vocabulary)."""
    output: torch.Tensor = model(**_inputs(context, ids), use_cache=False).logits[0]
    return output


@torch.inference_mode()
def generate(model: Any, context: Context, ids: Sequence[int], budget: int) -> list[int]:
    """What ``transformers`` itself writes behind one context, greedily, without the end token."""
    inputs = _inputs(context, ids)
    written = model.generate(
        **inputs, max_new_tokens=budget, do_sample=False, eos_token_id=_ends(model)
    )
    new: list[int] = written[0, inputs["input_ids"].shape[1] :].tolist()
    return new[:-1] if new and new[-1] in _ends(model) else new


def read(
    checkpoint: Checkpoint, model: Any, request: JudgeRequest, prompter: Prompter
) -> ScoreResult:
    """The reading of one request, the long way."""
    prepared = prompter.prepare(request)
    ask = ScoreRequest(
        prepared.context,
        prepared.response is not None,
        request.rubric,
        request.think.threshold,
        answer_budget(request.rubric),
    )
    return read_ask(checkpoint, model, ask)


def read_ask(checkpoint: Checkpoint, model: Any, ask: ScoreRequest) -> ScoreResult:
    """The reading of one prepared context, the long way."""
    answer, tokenizer, context = checkpoint.answer, checkpoint.tokenizer, ask.context
    user = _side(logits(model, context, answer.user)[-1], answer)
    spelled = answer.spell(user.label)
    response = None
    if ask.response:
        response = _side(logits(model, context, (*spelled, *answer.response))[-1], answer)
    counted = [
        "unsafe" if side.label == "unsafe" or side.score >= ask.threshold else "safe"
        for side in (user, response)
        if side is not None
    ]
    chance = max(side.score for side in (user, response) if side is not None)
    if "unsafe" not in counted:
        suspected = [
            "unsafe" if side.score >= FLOOR_THRESHOLD else "safe"
            for side in (user, response)
            if side is not None
        ]
        if "unsafe" not in suspected:
            return ScoreResult(user=user, response=response)
        lines = (*answer.spell(*suspected), *answer.categories)  # type: ignore[arg-type]
        floor = chance * _spelled(model, context, lines, answer.floor)
        return ScoreResult(user=user, response=response, floor_score=floor)
    lines = (*answer.spell(*counted), *answer.categories)  # type: ignore[arg-type]
    ids = generate(model, context, lines, ask.category_budget)
    for count in range(len(ids)):
        if "\n" in tokenizer.decode(ids[count : count + 1]):
            ids = ids[: count + 1]
            break
    text = tokenizer.decode(ids)
    chances = logits(model, context, (*lines, *ids)).log_softmax(-1)
    offset = len(context) + len(lines) - 1
    ends = [len(tokenizer.decode(ids[: n + 1])) for n in range(len(ids))]
    categories, floor = [], _spelled(model, context, lines, answer.floor)
    for named in split_categories(text.split("\n")[0], ask.rubric):
        touched = [
            n
            for n in range(len(ids))
            if (ends[n - 1] if n else 0) < named.end and ends[n] > named.start
        ]
        score = float(sum(chances[offset + n, ids[n]] for n in touched).exp())  # type: ignore[union-attr]
        categories.append(CategoryScore(name=named.name, score=score))
        last = next(n for n in range(len(ids)) if ends[n] >= named.end)
        before, name = (*lines, *ids[: last + 1]), answer.floor
        if text[named.end : ends[last]] == "":
            name = (*answer.comma, *answer.floor)
        elif text[named.end : ends[last]] != ",":
            continue
        floor = max(floor, _spelled(model, context, before, name))
    floor = max([floor, *(c.score or 0.0 for c in categories if c.name == FLOOR)])
    return ScoreResult(
        user=user,
        response=response,
        categories=tuple(categories),
        categories_complete=len(ids) < ask.category_budget,
        floor_score=chance * floor,
    )


def _spelled(model: Any, context: Context, before: Sequence[int], name: Sequence[int]) -> float:
    chances = logits(model, context, (*before, *name)).log_softmax(-1)
    start = len(context) + len(before) - 1
    spelled = [chances[start + n, token] for n, token in enumerate(name)]
    return float(torch.stack(spelled).sum().exp())


def _side(row: torch.Tensor, answer: AnswerTokens) -> Side:
    score = float(torch.softmax(row[[answer.safe, answer.unsafe]], -1)[1])
    return Side(label="unsafe" if score >= 0.5 else "safe", score=score)


def _inputs(context: Context, ids: Sequence[int]) -> dict[str, Any]:
    whole = context.extended(ids)
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([whole.ids]),
        "attention_mask": torch.ones(1, len(whole), dtype=torch.long),
    }
    if whole.pixels is not None:
        inputs["pixel_values"] = whole.pixels
        inputs["token_type_ids"] = torch.tensor([whole.types])
    return inputs


def _ends(model: Any) -> list[int]:
    ends: list[int] = model.generation_config.eos_token_id
    return ends
