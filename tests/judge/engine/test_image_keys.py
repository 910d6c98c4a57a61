"""An image that comes again is gone on from: the same logits, with nothing of it computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import oracle
from tests.support.engine_cases import FIRST, Source, of_no_numbers
from worker.errors import Undecided
from worker.judge.engine.batch import VarlenBatch
from worker.judge.engine.device import Engine, EngineDevice
from worker.judge.engine.sequences import sequences_for
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ScoreResult

Open = Callable[..., EngineDevice]
TOLERANCE = 1e-5
POLICIES, IMAGES = 4, 3


@pytest.fixture
def source(plain: Checkpoint) -> Source:
    return Source(plain, 21, policies=POLICIES)


def computed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every forward from now on."""
    counts: list[int] = []
    run = engine.forward.run

    def counting(rows: Any, **kwargs: Any) -> Any:
        counts.append(sum(row.count for row in rows))
        return run(rows, **kwargs)

    monkeypatch.setattr(engine.forward, "run", counting)
    return counts


def test_the_third_event_with_an_image_computes_its_text_alone(
    open_engine: Open, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen once it is not kept, seen twice it is; neither the tower nor its tokens run again."""
    device = open_engine()
    engine = device.engine(None)
    cases = [source.showing(0, 0) for _ in range(3)]
    for kept, case in enumerate(cases[:2]):
        assert len(engine.image_keys) == 0
        device.read(None, [case.ask()])
        assert len(engine.image_keys) == kept
    assert device.kept().image_keys_bytes == engine.image_keys.bytes > 0

    def no_tower(_: Any) -> Any:
        raise AssertionError("the vision tower ran")

    monkeypatch.setattr(device.replicas[None].model, "get_image_features", no_tower)
    counts = computed(engine, monkeypatch)
    device.read(None, [cases[2].ask()])
    context = cases[2].context
    behind = len(context) - context.types.index(1) - sum(context.types)
    assert counts[0] < behind + 20  # the answer's constant text
    assert counts[0] < len(context) - context.policy


def test_a_wave_reads_what_the_plain_model_reads(
    open_engine: Open,
    source: Source,
    plain: Checkpoint,
    plain_models: dict[str | None, Any],
    adapters: list[str | None],
) -> None:
    """Few images under few policies and three adapters, mixed with other events.

    Neither budget holds all: images go and come again, and a policy is computed anew beside the
    keys of an image that were kept.
    """
    one = bytes_of_one(open_engine().engine(None), source)
    budget = int(one * 4.5)
    device = open_engine(prefix_bytes=2 * one, image_keys_bytes=budget)
    dice = source.rng
    for adapter in adapters:
        cases = [
            source.case(adapter)
            if dice.random() < 0.2
            else source.showing(dice.randrange(POLICIES), dice.randrange(IMAGES), adapter)
            for _ in range(90)
        ]
        keys = device.engine(adapter).image_keys
        for batch in source.batches(cases):
            readings = device.read(adapter, [case.ask() for case in batch])
            for case, reading in zip(batch, readings, strict=True):
                alike(reading, oracle.read_ask(plain, plain_models[adapter], case.ask()))
            assert keys.bytes <= budget
        assert len(keys) == 4


def bytes_of_one(engine: Engine, source: Source) -> int:
    """What an image takes under a policy."""
    context = source.showing(0, 0).context
    for _ in range(2):
        (row,) = sequences_for([context], [None], engine.prefixes, engine.images)
        (own,) = engine.forward.run([row], keep=[True]).kept
        assert own is not None
        engine.image_keys.keep(context, own)
    return engine.image_keys.bytes


def alike(reading: ScoreResult | Undecided, wanted: ScoreResult) -> None:
    assert isinstance(reading, ScoreResult)
    for side, other in ((reading.user, wanted.user), (reading.response, wanted.response)):
        assert (side is None) == (other is None)
        if side is not None and other is not None:
            assert side.label == other.label
            assert side.score == pytest.approx(other.score, abs=TOLERANCE)
    assert [each.name for each in reading.categories] == [each.name for each in wanted.categories]
    for one, expected in zip(reading.categories, wanted.categories, strict=True):
        assert one.score == pytest.approx(expected.score, abs=TOLERANCE)


def test_nothing_is_shared_that_differs(
    open_engine: Open, source: Source, adapters: list[str | None]
) -> None:
    """Another policy, another image, text in front of it, another adapter; no digest, no policy."""
    device = open_engine()
    keys = device.engine(None).image_keys
    for _ in range(2):
        device.read(None, [source.showing(0, 0).ask()])
    known = source.showing(0, 0).context
    assert keys.find(known) is not None
    assert device.engine(adapters[1]).image_keys.find(known) is None
    cut = known.policy
    strangers = {
        "policy": source.showing(1, 0).context,
        "image": source.showing(0, 1).context,
        "no digest": dataclasses.replace(known, digest=""),
        "no policy": dataclasses.replace(known, policy=0),
        "another cut": dataclasses.replace(known, policy=cut - 1),
        "text in front": dataclasses.replace(
            known,
            ids=(*known.ids[:cut], FIRST, *known.ids[cut:]),
            types=(*known.types[:cut], 0, *known.types[cut:]),
        ),
    }
    for name, stranger in strangers.items():
        assert keys.find(stranger) is None, name


def test_the_least_recently_used_go_and_zero_keeps_none(open_engine: Open, source: Source) -> None:
    """The budget holds to the byte."""
    one = bytes_of_one(open_engine().engine(None), source)
    device = open_engine(image_keys_bytes=2 * one)
    keys = device.engine(None).image_keys
    contexts = [source.showing(0, image).context for image in range(3)]
    for image in (0, 0, 1, 1, 0, 2, 2):
        device.read(None, [source.showing(0, image).ask()])
    assert keys.bytes == 2 * one
    assert [keys.find(context) is not None for context in contexts] == [True, False, True]
    off = open_engine(image_keys_bytes=0)
    for _ in range(3):
        off.read(None, [source.showing(0, 0).ask()])
    assert off.kept().image_keys == off.kept().image_keys_bytes == 0


def test_numbers_that_are_none_are_not_kept(open_engine: Open, source: Source) -> None:
    """One bad moment of the device does not stay with an image."""
    engine = open_engine().engine(None)
    context = source.showing(0, 0).context
    (row,) = sequences_for([context], [None], engine.prefixes, engine.images)
    (own,) = engine.forward.run([row], keep=[True]).kept
    assert own is not None
    poisoned = dataclasses.replace(own, kv=of_no_numbers(own.kv))
    for _ in range(3):
        engine.image_keys.keep(context, poisoned)
    assert len(engine.image_keys) == 0
    engine.image_keys.keep(context, own)
    assert len(engine.image_keys) == 1


def test_events_of_one_image_meet_its_keys_in_one_call(open_engine: Open, source: Source) -> None:
    """As those of one policy do; neighbours with another image have a call of their own."""
    engine = open_engine().engine(None)
    contexts = [source.showing(0, image).context for image in (0, 0, 1, 1)]
    for context in contexts:
        (row,) = sequences_for([context], [None], engine.prefixes, engine.images)
        (own,) = engine.forward.run([row], keep=[True]).kept
        assert own is not None
        engine.image_keys.keep(context, own)
    known = [engine.image_keys.find(context) for context in contexts]
    rows = sequences_for(contexts, known, engine.prefixes, engine.images)
    plan = engine.forward.backend.plan(VarlenBatch(rows))
    assert len(plan.every.segments) == 1 + 2
