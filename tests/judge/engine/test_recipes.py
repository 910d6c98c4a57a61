"""Ways to reuse a policy's keys that are silently wrong for Gemma 3: the engine is not among them.

Each case runs the recipe as transformers allows it, shows that these weights can tell it from the
truth, and holds the engine to the truth on the same contexts (transformers 5.17).
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.support import oracle
from tests.support.engine_cases import IMAGE, WINDOW, picture, text
from worker.errors import Undecided
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.device import EngineDevice
from worker.judge.engine.sequences import sequences_for
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ReasoningRequest, ReasoningResult
from worker.judge.reference.decode import Context

EXACT = 1e-4
WRONG = 0.05
"""What a recipe has to be off by, or the case proves nothing."""
PAD = 0


def policy_cache(model: Any, ids: tuple[int, ...]) -> DynamicCache:
    """The policy's keys and values, as transformers keeps them."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
    return cache


def own(context: Context) -> tuple[int, ...]:
    return context.ids[context.policy :]


def padded_left(contexts: list[Context]) -> tuple[torch.Tensor, torch.Tensor]:
    """Suffixes ending together, and the mask over policy, padding and suffixes."""
    width, policy = max(len(own(each)) for each in contexts), contexts[0].policy
    ids = torch.full((len(contexts), width), PAD)
    mask = torch.ones(len(contexts), policy + width, dtype=torch.long)
    for row, context in enumerate(contexts):
        gap = width - len(own(context))
        ids[row, gap:] = torch.tensor(own(context))
        mask[row, policy : policy + gap] = 0
    return ids, mask


def last_of_each(engine: EngineDevice, contexts: list[Context]) -> list[torch.Tensor]:
    """The engine's logits of every context's last token, all in one forward."""
    run = engine.engine(None)
    rows = sequences_for(contexts, [None] * len(contexts), run.prefixes, run.images)
    asked = [
        InputSequence(row.ids, row.prefix, image=row.image, wanted=(len(row.ids) - 1,))
        for row in rows
    ]
    return [logits[0] for logits in run.forward.run(asked).logits]


def off(logits: torch.Tensor, model: Any, context: Context) -> float:
    return float((logits - oracle.logits(model, context)[-1]).abs().max())


def traces(engine: EngineDevice, contexts: list[Context], budget: int) -> list[list[int]]:
    """What the engine's THINK lane writes behind each context."""
    lane = engine.reasoning(None)
    numbers = lane.add([ReasoningRequest(context, budget) for context in contexts])
    found: dict[int, ReasoningResult | Undecided] = {}
    while lane.active:
        found.update(lane.step())
    written = [found[number] for number in numbers]
    return [list(each.ids) for each in written if isinstance(each, ReasoningResult)]


def texts(rng: random.Random, policy: int, lengths: tuple[int, ...]) -> list[Context]:
    """Contexts of one policy whose own texts have these lengths."""
    head = text(rng, policy, policy)
    return [Context((*head, *text(rng, n, n)), policy=policy) for n in lengths]


def with_image(plain: Checkpoint, rng: random.Random, policy: int, before: int) -> Context:
    """A context whose image stands ``before`` tokens behind its policy."""
    config = plain.model.config
    pixels, digest = picture(rng)
    soft = (config.boi_token_index, *[config.image_token_id] * IMAGE, config.eoi_token_index)
    ids = (*text(rng, policy, policy), *text(rng, before, before), *soft, *text(rng, 9, 9))
    types = tuple(int(token == config.image_token_id) for token in ids)
    return Context(ids, types, pixels, policy, digest)


LENGTHS = (4, 9, 40, 2 * WINDOW)


@pytest.mark.parametrize("policy", [WINDOW - 8, WINDOW, 2 * WINDOW + 5])
def test_left_padding_behind_a_kept_policy_beyond_the_window(
    engine: EngineDevice, plain: Checkpoint, policy: int
) -> None:
    """Masks count slots there, so padding eats the window of the shorter rows."""
    contexts = texts(random.Random(policy), policy, LENGTHS)
    ids, mask = padded_left(contexts)
    cache = policy_cache(plain.model, contexts[0].ids[:policy])
    cache.batch_repeat_interleave(len(contexts))
    with torch.inference_mode():
        recipe = plain.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1)[:, policy:],
            past_key_values=cache,
        ).logits[:, -1]
    assert max(off(recipe[n], plain.model, each) for n, each in enumerate(contexts)) > WRONG
    for context, logits in zip(contexts, last_of_each(engine, contexts), strict=True):
        assert off(logits, plain.model, context) <= EXACT


def test_generating_a_left_padded_batch_behind_a_kept_policy(
    engine: EngineDevice, plain: Checkpoint
) -> None:
    """The obvious batched form of the documented recipe writes other tokens."""
    contexts = texts(random.Random(3), WINDOW, LENGTHS)
    alone = [oracle.generate(plain.model, context, (), 12) for context in contexts]
    ids, mask = padded_left(contexts)
    cache = policy_cache(plain.model, contexts[0].ids[:WINDOW])
    cache.batch_repeat_interleave(len(contexts))
    heads = torch.tensor([context.ids[:WINDOW] for context in contexts])
    whole = torch.cat((heads, ids), 1)
    with torch.inference_mode():
        recipe = plain.model.generate(
            input_ids=whole,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=12,
            do_sample=False,
        )[:, whole.shape[1] :].tolist()
    assert any(one[: len(two)] != two for one, two in zip(recipe, alone, strict=True))
    assert traces(engine, contexts, 12) == alone


@pytest.mark.parametrize("policy", [20, 2 * WINDOW])
def test_an_image_behind_a_kept_policy_with_types_of_the_suffix_alone(
    engine: EngineDevice, plain: Checkpoint, policy: int
) -> None:
    """Blocks are counted from the first token, so the image's own is not found."""
    context = with_image(plain, random.Random(policy), policy, 5)
    assert context.pixels is not None
    cache = policy_cache(plain.model, context.ids[:policy])
    with torch.inference_mode():
        recipe = plain.model(
            input_ids=torch.tensor([own(context)]),
            attention_mask=torch.ones(1, len(context), dtype=torch.long),
            token_type_ids=torch.tensor([context.types[policy:]]),
            pixel_values=context.pixels,
            past_key_values=cache,
        ).logits[0, -1]
    assert off(recipe, plain.model, context) > WRONG
    (logits,) = last_of_each(engine, [context])
    assert off(logits, plain.model, context) <= EXACT


@pytest.mark.parametrize("policy", [20, 2 * WINDOW])
def test_generating_behind_a_kept_policy_and_an_image(
    engine: EngineDevice, plain: Checkpoint, policy: int
) -> None:
    """Even one row alone: the image's tokens see only those before them."""
    context = with_image(plain, random.Random(policy + 1), policy, 5)
    cache = policy_cache(plain.model, context.ids[:policy])
    with torch.inference_mode():
        recipe = plain.model.generate(
            input_ids=torch.tensor([context.ids]),
            attention_mask=torch.ones(1, len(context), dtype=torch.long),
            token_type_ids=torch.tensor([context.types]),
            pixel_values=context.pixels,
            past_key_values=copy.deepcopy(cache),
            max_new_tokens=2,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        ).logits[0][0]
    assert off(recipe, plain.model, context) > WRONG
    (logits,) = last_of_each(engine, [context])
    assert off(logits, plain.model, context) <= EXACT
    assert traces(engine, [context], 12) == [oracle.generate(plain.model, context, (), 12)]


def test_one_policys_keys_under_another_adapter(
    engine: EngineDevice, plain_models: dict[str | None, Any], adapters: list[str | None]
) -> None:
    """Keys belong to a policy and a set of weights: each adapter computes its own."""
    (context,) = texts(random.Random(4), 2 * WINDOW, (12,))
    base, other = (plain_models[adapter] for adapter in adapters[:2])
    cache = policy_cache(base, context.ids[: context.policy])
    with torch.inference_mode():
        recipe = other(input_ids=torch.tensor([own(context)]), past_key_values=cache).logits[0, -1]
    assert off(recipe, other, context) > WRONG
    for adapter in adapters:
        run = engine.engine(adapter)
        (row,) = sequences_for([context], [None], run.prefixes, run.images)
        asked = InputSequence(row.ids, row.prefix, wanted=(len(row.ids) - 1,))
        (logits,) = run.forward.run([asked]).logits
        assert off(logits[0], plain_models[adapter], context) <= EXACT
