"""A context goes through the model once; what goes on from there equals the whole forward."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import torch

from tests.support import oracle
from tests.support.checkpoints import WINDOW, make_tokenizer
from tests.support.judge_cases import requests
from tests.support.script_model import ScriptModel
from worker.judge.local.batch_scoring import plain_reader
from worker.judge.local.label_scores import Limits, answer_tokens
from worker.judge.local.loading import encoder, load
from worker.judge.local.prompt import Prompter
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import Context, GreedyStream, Prefix, Writing
from worker.judgement import JudgeRequest, ThinkPlan
from worker.policy.passes import builtin_rubric
from worker.settings import JudgeSettings

Open = Callable[..., Awaitable[Any]]
UNSAFE = ThinkPlan(threshold=0.0)
"""Everything counts as unsafe, and gets its category line and the floor's places in it."""
KEEP = 8


def answered() -> list[JudgeRequest]:
    """Requests with a response that count as unsafe."""
    cases = [case for case in requests(7, 16) if case.response is not None]
    return [msgspec.structs.replace(case, think=UNSAFE) for case in cases]


class Counting(ScriptModel):
    """Notes the shape, (rows, tokens), of every forward."""

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def __call__(self, *, input_ids: torch.Tensor, **inputs: Any) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        return super().__call__(input_ids=input_ids, **inputs)


def test_an_unsafe_event_is_prefilled_once() -> None:
    """The response's label, the category line and the floor's places cost a few tokens each."""
    tokenizer = make_tokenizer()
    encode = encoder(tokenizer)
    answer = answer_tokens(encode, [tokenizer.eos_token_id])
    mark = tokenizer.convert_tokens_to_ids("<unused17>")
    lines = "User Safety: unsafe\nResponse Safety: unsafe\n"
    text = encode(f"{lines}Safety Categories: Violence, Threat")
    model = Counting(len(tokenizer), mark, [*text, tokenizer.eos_token_id])
    model.shapes.clear()
    context = Context((*range(100, 500), mark))
    ask = ScoreRequest(context, True, builtin_rubric(()))
    (reading,) = plain_reader(model, answer, tokenizer, Limits(4, 1000)).read([ask])
    assert isinstance(reading, ScoreResult)
    assert reading.response is not None
    assert {reading.user.label, reading.response.label} == {"unsafe"}
    assert [each.name for each in reading.categories] == ["Violence", "Threat"]
    first, *rest = model.shapes
    assert first == (1, len(context) + len(encode("User Safety: safe\nResponse Safety:")))
    places = 3  # the floor could stand first, and behind either name
    spelled = KEEP + len(text) + len(answer.comma) + len(answer.floor)
    steps = len(text) - len(encode(f"{lines}Safety Categories:"))
    # Also: the response's label, and the category line up to its first token.
    assert sum(rows * width for rows, width in rest) <= (places + 2) * spelled + steps
    assert (places + 2) * spelled + steps < len(context)


async def test_a_batch_is_prefilled_once_and_only_unsafe_rows_go_on(open_rig: Open) -> None:
    rig = await open_rig(engine="plain")
    judge = rig.judge
    prompter = Prompter(judge.checkpoint, context_budget=256)
    cases = requests(4, 12)
    asks = [
        ScoreRequest(
            prompter.prepare(case).context, case.response is not None, case.rubric, threshold
        )
        for case, threshold in zip(cases, itertools.cycle((0.0, 0.0, 1.0)), strict=False)
    ]
    widths: list[tuple[int, int]] = []
    judge.checkpoint.model.register_forward_pre_hook(
        lambda _, __, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    readings = rig.device.read(None, asks)
    assert not any(isinstance(each, Exception) for each in readings)
    shortest = min(len(ask.context) for ask in asks)
    assert [rows for rows, width in widths if width >= shortest] == [len(asks)]


async def test_keys_and_values_are_freed_with_the_batch(open_rig: Open) -> None:
    """Also of those who went on: the device's memory is the next batch's."""
    rig = await open_rig(engine="plain")
    caches: list[weakref.ref[Any]] = []
    rig.judge.checkpoint.model.register_forward_pre_hook(
        lambda _, __, kwargs: caches.append(weakref.ref(kwargs["past_key_values"])),
        with_kwargs=True,
    )
    for each in answered():
        await rig.judge.judge(each)
    assert len(caches) > 8
    assert [ref() for ref in caches] == [None] * len(caches)


def test_going_on_equals_the_whole_forward_however_often_it_is_done(checkpoint: Path) -> None:
    """Below and above the window, images, repeats, and after others wrote on the same rows."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    prompter = Prompter(plain, context_budget=256)
    contexts = [prompter.prepare(case).context for case in requests(6, 10, longest=250)]
    contexts += [
        Context(tuple(10 + i % 800 for i in range(length))) for length in (WINDOW - 3, 3 * WINDOW)
    ]
    assert any(context.pixels is not None for context in contexts)
    assert min(map(len, contexts)) < WINDOW < max(map(len, contexts))
    prefix, _ = Prefix.compute(plain.model, contexts, 0, KEEP)
    rows = [*range(len(contexts)), 3, 3, 0]
    tails = [tuple(range(50, 50 + 3 + 5 * n % 31)) for n in range(len(rows))]
    longer = [contexts[row].extended(tail) for row, tail in zip(rows, tails, strict=True)]
    for _ in range(2):
        got = prefix.logits_of(rows, longer, [len(tail) for tail in tails])
        for row, tail, logits in zip(rows, tails, got, strict=True):
            alone = oracle.logits(plain.model, contexts[row], tail)[-len(tail) :]
            assert (logits - alone).abs().max() < 1e-4
        stream = GreedyStream(
            plain.model,
            contexts,
            [40] * len(contexts),
            pad=0,
            writing=Writing(plain.answer.stop, (1, 2)),
            prefix=prefix,
            prefix_rows=range(len(contexts)),
        )
        for context, written in zip(contexts, stream.run(), strict=True):
            assert written.ids == oracle.generate(plain.model, context, (), 40)


def test_rows_that_would_leave_padding_between_tokens_are_not_written_together(
    checkpoint: Path,
) -> None:
    """Masks count slots: padding in the middle would silently shift the sliding window."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    contexts = [Context(tuple(range(10, 30))), Context(tuple(range(10, 40)))]
    prefix, _ = Prefix.compute(plain.model, contexts, 0, KEEP)
    with pytest.raises(ValueError, match="same slot"):
        GreedyStream(
            plain.model,
            [contexts[0], contexts[1].extended((5,))],
            [4, 4],
            pad=0,
            writing=Writing(plain.answer.stop, (1, 2)),
            prefix=prefix,
            prefix_rows=(0, 1),
        )


def test_an_image_is_never_computed_in_parts(checkpoint: Path) -> None:
    """Its tokens would see only those before them."""
    plain = load(JudgeSettings(model=str(checkpoint)))
    prompter = Prompter(plain, context_budget=256)
    cases = (prompter.prepare(case).context for case in requests(5, 30, longest=60))
    context = next(each for each in cases if each.pixels is not None)
    behind = len(context) - max(n for n, kind in enumerate(context.types) if kind)
    prefix, _ = Prefix.compute(plain.model, [context], 0, behind)
    with pytest.raises(ValueError, match="image"):
        prefix.logits_of([0], [context], [1])
    prefix, _ = Prefix.compute(plain.model, [context], 0, behind - 1)
    (logits,) = prefix.logits_of([0], [context], [1])
    with torch.inference_mode():
        assert (logits - oracle.logits(plain.model, context)[-1]).abs().max() < 1e-4
