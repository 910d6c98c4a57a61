"""What the engine keeps: policies within their budget, images within theirs, never a wrong one."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support import oracle
from tests.support.engine_cases import IMAGE, WINDOW, Case, Source, text
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.device import Engine, EngineDevice
from worker.judge.engine.prefix_cache import PREFIX_CHUNK
from worker.judge.engine.sequences import going_on, sequences_for
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ScoreResult

Open = Callable[..., EngineDevice]


def policies(source: Source, count: int) -> list[tuple[int, ...]]:
    """Distinct policies of one length, so that each takes the same bytes."""
    heads = [each for each in source.policies if len(each) >= 20]
    return [each[:20] for each in heads[:count]]


def size_of(engine: Engine, ids: tuple[int, ...]) -> int:
    engine.prefixes.pin(ids)
    return engine.prefixes.bytes


@pytest.fixture
def heads(plain: Checkpoint) -> list[tuple[int, ...]]:
    return policies(Source(plain, 8), 6)


@pytest.fixture
def room_for(
    open_engine: Open, heads: list[tuple[int, ...]], engine: EngineDevice
) -> Callable[[float], Engine]:
    """Opens an engine whose budget holds so many of the policies."""
    one = size_of(open_engine().engine(None), heads[0])

    def room_for(count: float) -> Engine:
        return open_engine(prefix_bytes=int(one * count)).engine(None)

    return room_for


def test_a_policy_that_went_live_is_there_before_its_first_event(
    room_for: Callable[[float], Engine], heads: list[tuple[int, ...]]
) -> None:
    """Its first event is a hit, and what is pinned twice takes its bytes once."""
    prefixes = room_for(3).prefixes
    prefixes.pin(heads[0])
    taken = prefixes.bytes
    prefixes.pin(heads[0])
    kept = prefixes.get(heads[0])
    assert (prefixes.hits, prefixes.misses) == (1, 0)
    assert prefixes.bytes == taken == kept.bytes


def test_traffic_never_displaces_a_policy(
    room_for: Callable[[float], Engine], heads: list[tuple[int, ...]]
) -> None:
    """What finds no room is computed for its batch, and counted; the budget holds to the byte."""
    prefixes = room_for(2.5).prefixes
    prefixes.pin(heads[0])
    prefixes.pin(heads[1])
    full = prefixes.bytes
    for _ in range(3):
        for head in heads[2:]:
            assert prefixes.get(head).ids == head
    assert (len(prefixes), prefixes.bytes) == (2, full)
    assert prefixes.misses == 3 * len(heads[2:])
    prefixes.get(heads[0])
    prefixes.get(heads[1])
    assert prefixes.hits == 2


def test_what_finds_no_room_is_computed_once_for_a_batch(
    room_for: Callable[[float], Engine], heads: list[tuple[int, ...]]
) -> None:
    """Its events hold it in common while they are there, and nothing does afterwards."""
    prefixes = room_for(0.5).prefixes
    batch = [prefixes.get(heads[0]) for _ in range(5)]
    assert all(each is batch[0] for each in batch)
    assert (prefixes.misses, prefixes.bytes) == (1, 0)
    del batch
    prefixes.get(heads[0])
    assert prefixes.misses == 2


def test_a_policy_that_goes_live_takes_the_place_of_the_longest_unused(
    room_for: Callable[[float], Engine], heads: list[tuple[int, ...]]
) -> None:
    """Pinning again counts as use: what is in force outlasts what was replaced."""
    prefixes = room_for(3.5).prefixes
    for head in heads[:3]:
        prefixes.pin(head)
    prefixes.get(heads[1])  # traffic of a version that is replaced now
    prefixes.pin(heads[0])
    prefixes.pin(heads[2])
    prefixes.pin(heads[3])
    before = prefixes.misses
    for head in (heads[0], heads[2], heads[3]):
        prefixes.get(head)
    assert prefixes.misses == before
    prefixes.get(heads[1])
    assert prefixes.misses == before + 1


def test_a_policy_larger_than_the_budget_is_judged_and_named_in_the_log(
    room_for: Callable[[float], Engine],
    heads: list[tuple[int, ...]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefixes = room_for(0.5).prefixes
    with caplog.at_level(logging.WARNING):
        prefixes.pin(heads[0])
    assert "judge.prefix_bytes" in caplog.text
    assert (len(prefixes), prefixes.bytes) == (0, 0)
    assert prefixes.get(heads[0]).ids == heads[0]


def test_a_policy_displaced_while_a_batch_needs_it_is_still_the_batchs(
    room_for: Callable[[float], Engine], plain: Checkpoint, heads: list[tuple[int, ...]]
) -> None:
    """A reload between laying a batch out and running it changes none of its logits."""
    engine = room_for(1)
    source = Source(plain, 9)
    cases = [source.case(image=False) for _ in range(6)]
    rows = sequences_for(
        [case.context for case in cases], [None] * 6, engine.prefixes, engine.images
    )
    for head in heads:
        engine.prefixes.pin(head)
    asked = [InputSequence(row.ids, row.prefix, wanted=(len(row.ids) - 1,)) for row in rows]
    for case, logits in zip(cases, engine.forward.run(asked).logits, strict=True):
        alone = oracle.logits(plain.model, case.context)[-1]
        assert (logits[0] - alone).abs().max() <= 1e-4


def test_a_policy_needed_while_it_is_computed_is_kept_once(
    room_for: Callable[[float], Engine], plain: Checkpoint
) -> None:
    """An event between two pieces may pin it first; its bytes are counted once."""
    source = Source(plain, 14)
    long = text(source.rng, PREFIX_CHUNK + 9, PREFIX_CHUNK + 9)
    prefixes = room_for(500).prefixes
    pieces = prefixes.pinning(long)
    next(pieces)
    taken = prefixes.get(long).bytes
    assert list(pieces) == []
    assert (len(prefixes), prefixes.bytes) == (1, taken)


def test_kept_keys_are_never_written_to(engine: EngineDevice, plain: Checkpoint) -> None:
    """A thousand events later a policy's keys are the bytes they were."""
    source = Source(plain, 10)
    case = source.case(image=False)
    ids = case.context.ids[: case.context.policy]
    run = engine.engine(None)
    run.prefixes.pin(ids)
    kept = run.prefixes.get(ids)
    before = [(key.clone(), value.clone()) for key, value in kept.kv.layers]
    for batch in source.batches(source.cases(60)):
        engine.read(None, [each.ask() for each in (case, *batch)])
    for (key, value), (old_key, old_value) in zip(kept.kv.layers, before, strict=True):
        assert torch.equal(key, old_key)
        assert torch.equal(value, old_value)


class Tower:
    """Counts the images that go through the vision tower."""

    def __init__(self, model: Any) -> None:
        self.seen: list[int] = []
        model.model.vision_tower.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels: torch.Tensor = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
        self.seen.append(int(pixels.shape[0]))


def images(plain: Checkpoint, seed: int, count: int) -> list[Case]:
    source = Source(plain, seed)
    return [source.case(image=True) for _ in range(count)]


def test_an_image_goes_through_the_tower_once(open_engine: Open, plain: Checkpoint) -> None:
    """Equal images of one batch together, and those of later batches not at all."""
    device = open_engine()
    engine = device.engine(None)
    tower = Tower(device.replicas[None])
    cases = images(plain, 11, 30)
    digests = {case.context.digest for case in cases}
    first = engine.images.embed([case.context for case in cases])
    again = engine.images.embed([case.context for case in cases])
    assert sum(tower.seen) == len(digests) == engine.images.misses
    assert engine.images.hits == 2 * len(cases) - len(digests)
    for one, other in zip(first, again, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_what_ends_inside_an_image_is_not_gone_on_from(
    engine: EngineDevice, plain: Checkpoint
) -> None:
    """Its tokens see each other both ways, so half of them were computed wrongly."""
    (case,) = images(plain, 15, 1)
    context, run = case.context, engine.engine(None)
    start = context.types.index(1) - context.policy
    own = context.ids[context.policy :]
    for count in range(start + 1, start + IMAGE + 2):
        part = InputSequence(own[:count], run.prefixes.get(context.ids[: context.policy]))
        (known,) = run.forward.run([part], keep=[True]).kept
        inside = count < start + IMAGE
        assert (going_on(context, known, WINDOW) is None) is inside, count


def test_images_are_kept_within_their_bytes(open_engine: Open, plain: Checkpoint) -> None:
    """The least recently used go; one without a digest, or none at all, is never kept."""
    contexts = {case.context.digest: case.context for case in images(plain, 12, 60)}
    first, second, third = list(contexts.values())[:3]
    probe = open_engine().engine(None).images
    probe.embed([first])
    kept = open_engine(image_bytes=2 * probe.bytes).engine(None).images
    kept.embed([first])
    kept.embed([second])
    kept.embed([first])
    kept.embed([third])
    assert kept.bytes == 2 * probe.bytes
    kept.embed([first])
    assert kept.misses == 3
    kept.embed([second])
    assert kept.misses == 4
    nameless = dataclasses.replace(first, digest="")
    kept.embed([nameless, nameless])
    assert kept.misses == 6
    assert kept.bytes == 2 * probe.bytes
    off = open_engine(image_bytes=1).engine(None).images
    off.embed([first])
    assert off.bytes == 0


def test_numbers_that_are_none_are_not_kept(open_engine: Open, plain: Checkpoint) -> None:
    """One bad moment of the device does not stay with a policy or an image."""
    device = open_engine()
    engine, model = device.engine(None), device.replicas[None]
    (case,) = images(plain, 13, 1)
    ids = case.context.ids[: case.context.policy]

    def poison(_: Any, __: Any, output: Any) -> Any:
        return output * float("nan")

    embed = model.model.language_model.embed_tokens
    handles = [embed.register_forward_hook(poison)]
    engine.prefixes.pin(ids)
    engine.prefixes.get(ids)
    (result,) = device.read(None, [case.ask()])
    assert isinstance(result, Undecided)
    assert result.reason is UndecidedReason.NOT_FINITE
    handles[0].remove()
    found = model.model.get_image_features

    def features(pixels: Any) -> Any:
        output = found(pixels)
        output.pooler_output = output.pooler_output * float("nan")
        return output

    model.model.get_image_features = features
    engine.images = type(engine.images)(model, 1 << 20)
    (bad,) = engine.images.embed([case.context])
    assert bad is not None
    assert not torch.isfinite(bad).any()
    assert engine.images.bytes == 0
    model.model.get_image_features = found
    assert len(engine.prefixes) == 0
    (result,) = device.read(None, [case.ask()])
    assert isinstance(result, ScoreResult)
    alone = oracle.read_ask(plain, plain.model, case.ask())
    assert result.user.score == pytest.approx(alone.user.score, abs=1e-4)
