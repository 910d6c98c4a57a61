"""The memory plan: exact about weights, what the engine allocates, of help where it is short."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from worker.judge.engine import memory
from worker.judge.engine.backend import BackendName
from worker.judge.engine.backends import make
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.decode_batch import MAX_DRAFT_TOKENS, DecodeBatch
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import TOWER_BATCH
from worker.judge.engine.memory import ANSWER, SCORED, Allocations, MemoryProfile
from worker.judge.engine.model import TextWeights
from worker.judge.engine.prefix_cache import PREFIX_CHUNK, PrefixCache
from worker.judge.engine.quantization import Numerics, quantizer
from worker.judge.engine.shapes import config_4b
from worker.judge.local.memory import (
    GIB,
    GIVES_WAY,
    Card,
    Demand,
    Policy,
    changes,
    fit,
    fitted,
    plan,
)
from worker.settings import JudgeSettings

FULL, SLIDING = "full_attention", "sliding_attention"
POLICIES = (Policy(320), Policy(1000), Policy(1000))
SMALL: dict[str, Any] = {"numerics": "w8a16", "max_context": 2048}
"""What an 8 GB card can hold."""


def card(gib: float) -> Card:
    return Card("a card", int(gib * GIB), False)


def demand(policies: tuple[Policy, ...] | None = POLICIES, **settings: Any) -> Demand:
    return Demand(
        JudgeSettings.model_validate(settings), config_4b(), torch.bfloat16, "reference", False,
        policies=policies,
    )  # fmt: skip


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_weights_of_the_4b_shape_are_known_to_the_byte(dtype: torch.dtype) -> None:
    """All of the model's parameters, and beside them the norms' gains in float32."""
    parts = MemoryProfile(config_4b(), dtype, "model", "reference").weights()
    gains = 4 * (34 * (4 * 2560 + 2 * 256) + 2560)
    assert sum(parts.values()) == 4_300_079_472 * dtype.itemsize + gains


@pytest.mark.parametrize("numerics", ["model", "int8", "w8a16"])
def test_the_weights_in_eight_bits_are_what_the_engine_makes(numerics: Numerics) -> None:
    """Matrices, their scales and the gains, byte for byte."""
    model = medium(torch.bfloat16)
    profile = MemoryProfile(model.config, torch.bfloat16, numerics, "reference")
    text = TextWeights(model, quantizer(numerics, torch.device("cpu"), torch.bfloat16))
    linears = [m for each in text.layers for m in (each.qkv, each.out, each.gate_up, each.down)]
    made = sum(m.weight.nbytes + (0 if m.scale is None else m.scale.nbytes) for m in linears)
    gains = [gain for each in text.layers for gain in vars(each.norms).values()]
    made += sum(gain.nbytes for gain in (*gains, text.final_norm))
    norms = model.model.language_model.layers.parameters()
    made += sum(each.nbytes for each in norms if each.dim() == 1 and each.numel())
    made += model.model.language_model.norm.weight.nbytes
    assert profile.weights()["text body"] == made


ALIKE, MIXED, ONE = [120] * 8, [40 + 25 * n for n in range(8)], [420]


@pytest.mark.parametrize(
    ("backend", "dtype", "numerics", "lengths"),
    [
        ("cpu", torch.float32, "model", ALIKE),
        ("cpu", torch.bfloat16, "model", MIXED),
        ("reference", torch.float32, "model", ONE),
        ("reference", torch.bfloat16, "model", MIXED),
        ("cpu", torch.bfloat16, "int8", ALIKE),
        ("cpu", torch.bfloat16, "w8a16", ALIKE),
    ],
)
def test_a_batch_takes_what_was_profiled(
    backend: BackendName, dtype: torch.dtype, numerics: Numerics, lengths: list[int]
) -> None:
    """Counted tensor by tensor on a real model: no more than the profile of three layers says for
    twelve, and more than half of it."""
    model = medium(dtype)
    vocabulary = model.config.text_config.vocab_size
    weights = TextWeights(model, quantizer(numerics, torch.device("cpu"), dtype))
    forward = Forward(weights, make(backend, weights))
    prefix = PrefixCache(forward, GIB).get(ids(200, vocabulary))
    sequences = [
        InputSequence(ids(n, vocabulary), prefix, wanted=tuple(range(n - SCORED, n)))
        for n in lengths
    ]
    with Allocations() as counted:
        kept = forward.run(sequences, keep=[True] * len(sequences)).kept
    profile = MemoryProfile(model.config, dtype, numerics, backend)
    tokens = sum(lengths)
    planned = profile.moment("batch", len(lengths), tokens, max(lengths), 200, 0)
    assert counted.peak <= 1.05 * planned, (counted.peak, planned)
    assert planned <= 2 * counted.peak, (counted.peak, planned)
    with Allocations() as decoding:
        batch = DecodeBatch(forward, least=len(lengths))
        for own in kept:
            assert own is not None
            batch.add(own.copied(), ANSWER + MAX_DRAFT_TOKENS)
        drafts = [[ids(MAX_DRAFT_TOKENS, vocabulary)]] * len(lengths)
        forward.logits(torch.cat(batch.step([(5,) * SCORED] * len(lengths), drafts))[:8])
    planned = profile.moment("decoding", len(lengths), tokens)
    if lengths is ALIKE:
        assert decoding.peak <= 1.05 * planned, (decoding.peak, planned)
        assert planned <= 2 * decoding.peak, (decoding.peak, planned)


def test_a_policy_takes_what_was_profiled() -> None:
    """Computed in chunks, its keys once more while one joins them; what is kept is exact."""
    model = medium(torch.float32)
    weights = TextWeights(model)
    forward = Forward(weights, make("cpu", weights))
    tokens = PREFIX_CHUNK + 300
    with Allocations() as counted:
        kept = PrefixCache(forward, GIB).get(ids(tokens, 4096))
    profile = MemoryProfile(model.config, torch.float32, "model", "cpu")
    planned = profile.moment("policy", tokens)
    assert counted.peak <= planned <= 2 * counted.peak, (counted.peak, planned)
    assert profile.prefix(tokens) == kept.bytes


def test_images_take_what_was_profiled() -> None:
    """The tower over four images, attention without its scores."""
    model = medium(torch.float32)
    size = model.config.vision_config.image_size
    with Allocations() as counted, torch.inference_mode():
        model.model.get_image_features(torch.zeros(4, 3, size, size))
    planned = MemoryProfile(model.config, torch.float32, "model", "cpu").moment("images", 4)
    assert 0.9 * counted.peak <= planned <= 1.5 * counted.peak, (counted.peak, planned)


def test_a_lane_takes_what_its_slots_take() -> None:
    """Eight traces of a hundred tokens with room for fifty more."""
    model = medium(torch.float32)
    weights = TextWeights(model)
    forward = Forward(weights, make("cpu", weights))
    own = InputSequence(ids(100, 4096))
    (known,) = forward.run([own], keep=[True]).kept
    assert known is not None
    batch = DecodeBatch(forward)
    for _ in range(8):
        batch.add(known, 50)
    profile = MemoryProfile(model.config, torch.float32, "model", "cpu")
    assert profile.lane(8, 100, 50) == batch.slots.bytes


def test_what_the_engine_allocates_more_is_planned_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan follows the code: nothing about it is written down a second time."""
    before = MemoryProfile(medium(torch.float32).config, torch.float32, "model", "cpu")
    images = before.moment("images", 64)
    lane = before.lane(2, 20, 10)
    monkeypatch.setattr(memory, "TOWER_BATCH", 2 * TOWER_BATCH)
    monkeypatch.setattr("worker.judge.engine.kv_cache.SLOT_GROWTH", 256)
    after = MemoryProfile(before.config, torch.float32, "model", "cpu")
    assert after.moment("images", 64) > 1.8 * images
    assert after.lane(2, 20, 10) == 4 * lane


@pytest.mark.parametrize("gib", [16, 24, 80])
def test_defaults_start_on_ordinary_cards(gib: int) -> None:
    """The 4B shape in bfloat16, traces and all budgets included: a larger card gets more."""
    made = fitted(demand(policies=None), card(gib))
    assert made.fits, (made.needed / GIB, made.parts)
    settings = made.demand.settings
    assert settings.max_batch_tokens >= {16: 2048, 24: 8192, 80: 16_384}[gib]
    assert settings.think_lane >= {16: 1, 24: 8, 80: 64}[gib]
    assert settings.max_context == 8192, "what is judged does not depend on the card"


def test_an_8_gb_card_holds_the_model_with_eight_bit_weights_only() -> None:
    """bfloat16 weights alone are larger than the card; in eight bits the documented profile fits,
    with everything it leaves open lowered."""
    made = fitted(demand(**SMALL), card(8))
    assert made.fits, (made.needed / GIB, made.parts)
    least = fitted(demand(policies=()), card(8))
    assert least.held > least.usable


def test_what_was_set_is_obeyed_or_refused_with_words() -> None:
    """A batch that a card cannot hold is not made smaller behind its owner's back."""
    made = fitted(demand(policies=None, max_batch_tokens=65_536), card(16))
    assert made.demand.settings.max_batch_tokens == 65_536
    assert not made.fits
    found = changes(made)
    assert found["max_batch_tokens"][0] == "65536"
    values: dict[str, Any] = {name: to for name, (_, to) in found.items()}
    assert fitted(demand(policies=None, **values), card(16)).fits


def test_what_does_not_fit_names_numerics_that_do() -> None:
    """Eight-bit weights, with values that fit beside them; and nothing where nothing helps."""
    short = fitted(demand(max_context=2048), card(8))
    found = changes(short)
    assert found["numerics"] == ("model", "w8a16")
    values: dict[str, Any] = {name: to for name, (_, to) in found.items()}
    assert fitted(demand(max_context=2048, **values), card(8)).fits
    assert changes(fitted(demand(**SMALL), card(2))) == {}


def test_more_of_anything_never_takes_less() -> None:
    """Or the search for what fits would go astray."""
    least = plan(demand(**SMALL), card(8)).needed
    for name, value in {
        "max_batch": 50, "max_batch_tokens": 20_480, "max_context": 4096,
        "think_lane": 80, "image_bytes": GIB, "image_keys_bytes": GIB,
    }.items():  # fmt: skip
        assert plan(demand(**{**SMALL, name: value}), card(8)).needed >= least, name
    more = (*POLICIES, Policy(5000))
    assert plan(demand(policies=more, **SMALL), card(8)).needed >= least


def test_policies_beyond_their_budget_are_planned_as_computed_again() -> None:
    """They are no longer held, but there while their batch is."""
    one = demand(**SMALL).profile.prefix(1000)
    short = plan(demand(policies=(Policy(1000),) * 3, **SMALL, prefix_bytes=one), card(8))
    assert short.recomputed == 2
    held = {part.name: part.bytes for part in short.parts}
    assert held["policies"] == one


def test_what_gives_way_goes_down_step_by_step() -> None:
    """Every rung is below the one before it, and below the default."""
    last: dict[str, int] = {}
    for name, value in GIVES_WAY:
        assert value < last.get(name, getattr(JudgeSettings(), name))
        last[name] = value


def test_the_plain_model_is_not_planned() -> None:
    """Its batches are bounded by their settings alone."""
    settings = JudgeSettings(engine="plain")
    assert fit(settings, config_4b(), torch.device("cpu"), torch.float32) is settings


def ids(count: int, vocabulary: int) -> tuple[int, ...]:
    pick = random.Random(count)
    return tuple(pick.randrange(3, vocabulary) for _ in range(count))
