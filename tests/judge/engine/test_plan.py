"""The memory plan: exact about weights, never below what the engine allocates, of help if short."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from tests.support.allocations import Allocations
from worker.judge.engine import attention
from worker.judge.engine import attention as before
from worker.judge.engine import attention as cascade
from worker.judge.engine import decode_batch as step
from worker.judge.engine import plan_work as work
from worker.judge.engine.batch import Row
from worker.judge.engine.decode_batch import MOST
from worker.judge.engine.forward import Forward
from worker.judge.engine.model import TextWeights
from worker.judge.engine.plan import GIB, Demand, Policy, more, plan
from worker.judge.engine.plan_advice import changes, room
from worker.judge.engine.plan_sizes import Sizes, Vision, weights
from worker.judge.engine.prefix_cache import Prefixes
from worker.judge.engine.quantization import Numerics, maker
from worker.judge.engine.sequences import ComputedRows
from worker.judge.engine.shapes import config_4b
from worker.judge.reference.decode import Context, Writing

FULL, SLIDING = "full_attention", "sliding_attention"
SIZES_4B = Sizes(
    layers=34,
    full=5,
    hidden=2560,
    mlp=10_240,
    heads=8,
    kv_heads=4,
    head_dim=256,
    window=1024,
    vocabulary=262_208,
    positions=131_072,
    tied=True,
    vision=Vision(layers=27, hidden=1152, mlp=4304, image=896, patch=14, soft=256),
)
POLICIES = (Policy(320), Policy(1000), Policy(1000))
SMALL = Demand(
    sizes=SIZES_4B,
    element=2,
    body="weights8",
    policies=POLICIES,
    think_tokens=400,
    max_batch=4,
    max_batch_tokens=2048,
    prefill_tokens=512,
    max_context=2048,
    think_lane=2,
    image_bytes=64 * 1024**2,
    image_keys_bytes=64 * 1024**2,
)
"""What an 8 GB card can hold."""


def medium(dtype: torch.dtype) -> Gemma3ForConditionalGeneration:
    """Twelve layers, 640 wide, Gemma 3's pattern, a small vocabulary and a small tower."""
    text = Gemma3TextConfig(
        vocab_size=4096,
        hidden_size=640,
        intermediate_size=2560,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=128,
        query_pre_attn_scalar=128,
        sliding_window=128,
        max_position_embeddings=2048,
        layer_types=[SLIDING if (number + 1) % 6 else FULL for number in range(12)],
        rope_parameters={
            FULL: {"rope_type": "default", "rope_theta": 1e6},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    vision = SiglipVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=224,
        patch_size=14,
        vision_use_head=False,
    )
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=16)
    torch.manual_seed(0)
    return Gemma3ForConditionalGeneration(config).to(dtype).eval()


@pytest.mark.parametrize("element", [2, 4])
def test_the_weights_of_the_4b_shape_are_known_to_the_byte(element: int) -> None:
    """Every part equals the parameters of the true shape on the meta device."""
    config = config_4b()
    assert Sizes.of(config) == SIZES_4B
    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(config)
    model = model.to({2: torch.bfloat16, 4: torch.float32}[element])
    text = model.model.language_model

    def held(*modules: torch.nn.Module) -> int:
        return sum(weight.nbytes for module in modules for weight in module.parameters())

    planned = weights(SIZES_4B, element, "model")
    assert planned.body == held(text.layers, text.norm)
    assert planned.embedding == held(text.embed_tokens)
    assert planned.vision == held(model.model.vision_tower)
    assert planned.projector == held(model.model.multi_modal_projector)
    assert planned.model == held(model) == 4_300_079_472 * element


@pytest.mark.parametrize("body", ["model", "int8", "weights8"])
def test_the_weights_in_eight_bits_are_what_the_engine_makes(body: Numerics) -> None:
    """Matrices, their scales and the gains, byte for byte."""
    model = medium(torch.bfloat16)
    sizes = Sizes.of(model.config)
    text = TextWeights(model, maker(body, torch.device("cpu")))
    matrices = [m for each in text.layers for m in (each.qkv, each.out, each.gate_up, each.down)]
    made = sum(m.weight.nbytes + (0 if m.scale is None else m.scale.nbytes) for m in matrices)
    gains = sum(gain.nbytes for each in text.layers for gain in vars(each.norms).values())
    planned = weights(sizes, 2, body)
    assert planned.body == made + sizes.gains * 2
    assert planned.engine == gains + text.final_norm.nbytes


ALIKE, MIXED, ONE = [120] * 8, [40 + 25 * n for n in range(8)], [420]


@pytest.mark.parametrize(
    ("kernel", "dtype", "lengths"),
    [
        ("tiled", torch.float32, ALIKE),
        ("tiled", torch.bfloat16, MIXED),
        ("plain", torch.float32, ONE),
        ("plain", torch.bfloat16, MIXED),
    ],
)
def test_a_batch_takes_no_more_than_planned_and_half_of_it_at_least(
    kernel: work.Kernel,
    dtype: torch.dtype,
    lengths: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layers, logits, and every row written on: the widest moment, counted tensor by tensor."""
    if kernel == "plain":
        for module in (before, cascade, step):
            monkeypatch.setattr(module, "attend", attention.attend_plainly)
    model = medium(dtype)
    sizes, element = Sizes.of(model.config), dtype.itemsize
    forward = Forward(TextWeights(model))
    prefix = Prefixes(forward, GIB).get(_ids(200, sizes))
    measured = _measured(forward, sizes, lengths, prefix)
    batch = work.Batch(
        rows=len(lengths),
        tokens=sum(lengths) + len(lengths) * work.ASKED,
        longest=max(lengths) + work.ASKED,
        policy=200,
        host=True,
    )
    planned = max(
        work.forward(sizes, batch, element, "model", kernel),
        work.logits(sizes, batch, element),
        work.naming(sizes, batch, element, "model"),
    )
    assert measured <= planned <= 2 * measured, (planned / measured, planned, measured)


@pytest.mark.parametrize("body", ["int8", "weights8"])
def test_a_batch_in_eight_bits_takes_no_more_than_planned(body: Numerics) -> None:
    """Sums in 32 bits and widened matrices count."""
    model = medium(torch.bfloat16)
    sizes = Sizes.of(model.config)
    forward = Forward(TextWeights(model, maker(body, torch.device("cpu"))))
    lengths = ALIKE
    measured = _measured(forward, sizes, lengths, None)
    tokens = sum(lengths) + len(lengths) * work.ASKED
    batch = work.Batch(len(lengths), tokens, max(lengths) + work.ASKED, host=True)
    planned = work.forward(sizes, batch, 2, body, "tiled")
    assert measured <= planned <= 2 * measured, (planned / measured, planned, measured)


def test_images_take_no_more_than_planned_and_half_of_it_at_least() -> None:
    """The tower over four images, attention without its scores."""
    model = medium(torch.float32)
    sizes = Sizes.of(model.config)
    with Allocations() as counted, torch.inference_mode():
        pixels = torch.zeros(4, 3, sizes.vision.image, sizes.vision.image)
        model.model.get_image_features(pixels)
    planned = work.vision(sizes, 4, 4)
    assert counted.peak <= planned <= 2 * counted.peak, planned / counted.peak


def test_an_8_gb_card_holds_the_model_with_eight_bit_weights_only() -> None:
    """bfloat16 weights alone are larger than the card; in eight bits everything fits."""
    assert weights(SIZES_4B, 2, "model").model / GIB == pytest.approx(8.01, abs=0.005)
    assert plan(SMALL, 8 * GIB).fits
    assert not plan(more(SMALL, body="model"), 8 * GIB).fits
    least = more(SMALL, body="model", policies=(), max_batch=1, max_batch_tokens=1, max_context=1)
    assert plan(least, 8 * GIB).held > 8 * GIB


def test_what_does_not_fit_names_settings_with_values_that_fit() -> None:
    """At least two, no fewer than are needed, and the plan with them fits."""
    large = more(SMALL, max_batch=32, max_batch_tokens=16_384, think_lane=2)
    found = changes(large, 8 * GIB)
    assert len(found) >= 2
    numbers = {each.setting.removeprefix("judge."): int(each.to) for each in found}
    assert all(int(each.now) > int(each.to) for each in found)
    assert plan(more(large, **numbers), 8 * GIB).fits
    body = changes(more(SMALL, body="model"), 8 * GIB)
    assert ("judge.numerics", "weights8") in {(each.setting, each.to) for each in body}


def test_no_advice_where_no_settings_help() -> None:
    """Weights of their own are too much for two GiB in every format."""
    assert changes(SMALL, 2 * GIB) == ()


def test_the_largest_values_fit_and_one_more_does_not() -> None:
    """Tokens of a batch, tokens of a context and policies, each on its own."""
    card = 24 * GIB
    asked = more(SMALL, max_context=8192)
    found = room(asked, card)
    assert found.max_batch_tokens is not None
    assert plan(more(asked, max_batch_tokens=found.max_batch_tokens), card).fits
    assert not plan(more(asked, max_batch_tokens=found.max_batch_tokens + 1), card).fits
    assert found.max_context is not None
    assert plan(more(asked, max_context=found.max_context), card).fits
    assert found.max_context == 131_072 or (
        not plan(more(asked, max_context=found.max_context + 1), card).fits
    )
    assert found.policies is not None
    assert found.policies > len(POLICIES)


def test_more_of_anything_never_takes_less() -> None:
    """Or the search for what fits would go astray."""
    grown = [
        more(SMALL, max_batch=5),
        more(SMALL, max_batch_tokens=4096),
        more(SMALL, prefill_tokens=1024),
        more(SMALL, max_context=4096),
        more(SMALL, think_lane=5),
        more(SMALL, event_tokens=1024),
        more(SMALL, image_bytes=GIB),
        more(SMALL, image_keys_bytes=GIB),
        more(SMALL, adapters=1),
        more(SMALL, policies=(*POLICIES, Policy(5000))),
        more(SMALL, element=4),
    ]
    least = plan(SMALL, 0).needed
    assert all(plan(each, 0).needed >= least for each in grown)


def test_policies_beyond_their_budget_are_planned_as_computed_again() -> None:
    """They are no longer held, but there while their batch is."""
    one = SMALL.kept(Policy(1000))
    short = plan(more(SMALL, policies=(Policy(1000),) * 3, prefix_bytes=one), 8 * GIB)
    assert short.recomputed == 2
    held = {part.name: part.bytes for part in short.parts}
    assert held["policies"] == one


def _ids(count: int, sizes: Sizes) -> tuple[int, ...]:
    pick = random.Random(count)
    return tuple(pick.randrange(3, sizes.vocabulary) for _ in range(count))


def _measured(forward: Forward, sizes: Sizes, lengths: list[int], prefix: object) -> int:
    """Bytes at the peak of a batch that is read like a batch of events, then written on."""
    rows = [
        Row(
            _ids(length, sizes),
            prefix,  # type: ignore[arg-type]
            branches=(_ids(6, sizes), _ids(6, sizes)),
            wanted=tuple(range(length - 4, length + 12)),
        )
        for length in lengths
    ]
    head = rows[0].prefix.ids if rows[0].prefix is not None else ()
    with Allocations() as counted:
        found = forward.run(rows, keep=[True] * len(rows))
        for logits in found.logits:
            torch.log_softmax(logits, -1)
        computed = ComputedRows(forward, [own for own in found.kept if own is not None])
        del found, logits
        contexts = [Context((*head, *row.ids, 5, 6), policy=len(head)) for row in rows]
        writing = Writing(frozenset(), (3, 4))
        guess = _ids(MOST, sizes)
        computed.write(
            range(len(rows)), contexts, [2] * len(rows), writing, [lambda _: [guess]] * len(rows)
        )
    return counted.peak
