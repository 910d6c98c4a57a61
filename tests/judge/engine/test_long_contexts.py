"""Contexts of any length: computed in pieces, in bounded memory, while short ones pass."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.judge.conformance import RUBRICS, request
from tests.support import oracle
from tests.support.engine_cases import WINDOW, Source, text
from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, Undecided
from worker.judge.engine.device import EngineDevice
from worker.judge.engine.kv_cache import WINDOW_SLACK, SequenceKV
from worker.judge.local.loading import Checkpoint
from worker.judge.local.prompt import Prompter
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import Context
from worker.policy.passes import make_rubric

Open = Callable[..., Awaitable[Any]]
WAIT_S = 60.0


def pieces_of(engine: EngineDevice, ask: ScoreRequest) -> tuple[ScoreRequest, list[SequenceKV]]:
    """The ask once only its rest is left, and what was known after every piece."""
    prefill = engine.prefill(None, ask)
    assert prefill is not None
    known: list[SequenceKV] = []
    while True:
        ready = prefill.step()
        past = prefill._past
        assert past is not None
        known.append(past)
        if ready is not None:
            return ready, known


@pytest.mark.parametrize("policy", [9, 3 * WINDOW])
def test_thirty_windows_in_pieces_are_read_as_in_one(
    engine: EngineDevice, plain: Checkpoint, policy: int
) -> None:
    """Also behind a policy that is itself longer than the window."""
    source = Source(plain, 20 + policy)
    own = text(source.rng, 30 * WINDOW, 30 * WINDOW)
    case = source.case()
    context = Context((*text(source.rng, policy, policy), *own), policy=policy)
    ready, known = pieces_of(engine, case.ask(context=context))
    assert len(known) >= 30
    (got,) = engine.read(None, [ready])
    assert isinstance(got, ScoreResult)
    alone = oracle.read_ask(plain, plain.model, case.ask(context=context))
    assert got.user.score == pytest.approx(alone.user.score, abs=1e-4)
    assert [c.name for c in got.categories] == [c.name for c in alone.categories]


def test_sliding_layers_keep_only_their_window_between_pieces(
    engine: EngineDevice, plain: Checkpoint
) -> None:
    """So what a piece adds is the full layers' keys alone, however long the context is."""
    source = Source(plain, 22)
    context = Context(text(source.rng, 20 * WINDOW, 20 * WINDOW), policy=7)
    _, known = pieces_of(engine, source.case().ask(context=context))
    weights = engine.engine(None).forward.weights
    for past in known:
        for layer, (key, value) in zip(weights.layers, past.kv.layers, strict=True):
            most = WINDOW - 1 + WINDOW_SLACK if layer.sliding else len(past.ids)
            assert key.shape[1] == value.shape[1] <= most
            # A view would keep the whole piece's keys alive.
            assert not layer.sliding or key.untyped_storage().nbytes() <= most * key[:, 0].nbytes


async def test_a_long_event_does_not_hold_up_short_ones(open_rig: Open) -> None:
    """Between two of its pieces whatever else waits is read."""
    rig = await open_rig(prefill_tokens=64, max_batch=2)
    prefill, done = rig.device.prefill, []

    class Noted:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def step(self) -> Any:
            done.append("piece")
            return self._inner.step()

    def noted(adapter: str | None, ask: ScoreRequest) -> Any:
        inner = prefill(adapter, ask)
        return None if inner is None else Noted(inner)

    def before(asks: Sequence[ScoreRequest]) -> None:
        done.append("batch")

    rig.device.prefill, rig.device.before = noted, before
    long = asyncio.create_task(rig.judge.judge(request("how do I bake bread " * 150)))
    short = [asyncio.create_task(rig.judge.judge(request(f"n {n}"))) for n in range(12)]
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(long, *short)
    pieces = [place for place, what in enumerate(done) if what == "piece"]
    assert len(pieces) >= 6
    inside = done[pieces[0] : pieces[-1]]
    assert inside.count("batch") >= 3, "short ones waited for the long one's end"


async def test_pieces_change_no_answer(open_rig: Open) -> None:
    """The same long event, in one piece and in many, with an image in the middle of its first."""
    from tests.judge.conformance import IMAGE

    asked = [
        request("how do I bake bread " * 60, response="slowly " * 80, image=image)
        for image in (None, IMAGE)
    ]
    found = []
    for piece in (100_000, 64):
        rig = await open_rig(prefill_tokens=piece)
        found.append([await rig.judge.judge(each) for each in asked])
    for whole, cut in zip(*found, strict=True):
        assert cut.user.score == pytest.approx(whole.user.score, abs=1e-4)
        assert cut.response.score == pytest.approx(whole.response.score, abs=1e-4)
        assert [c.name for c in cut.categories] == [c.name for c in whole.categories]


async def test_a_policy_longer_than_the_window_judges_and_one_longer_than_the_context_is_refused(
    open_rig: Open,
) -> None:
    """The first like any other; the second before it goes live, with what to change."""
    rig = await open_rig(max_context=3000)
    lines = "\n".join(f"- talk of number {n} and what follows from it" for n in range(90))
    windows = make_rubric("policy", f"Judge this.\n\n### Policy\n{lines}", ("number",))
    await rig.judge.prepare(windows)
    prompter = Prompter(rig.judge.checkpoint, context_budget=0)
    taken = len(prompter.policy_ids(windows))
    window = rig.judge.checkpoint.model.config.text_config.sliding_window
    assert window < taken < 3000
    judged = await rig.judge.judge(request("Hello", rubric=windows))
    alone = oracle.read(
        rig.judge.checkpoint,
        rig.judge.checkpoint.model,
        request("Hello", rubric=windows),
        prompter,
    )
    assert judged.user.score == pytest.approx(alone.user.score, abs=1e-4)
    whole = make_rubric("policy", f"Judge this.\n\n### Policy\n{lines * 9}", ("number",))
    with pytest.raises(ConfigurationError, match=r"judge\.max_context"):
        await rig.judge.prepare(whole)
    with pytest.raises(Undecided) as caught:
        await rig.judge.judge(request("Hello", rubric=whole))
    assert caught.value.reason is UndecidedReason.CONTEXT_TOO_LONG
    assert await rig.judge.judge(request("Hello", rubric=RUBRICS[0]))


async def test_a_long_policy_that_goes_live_does_not_hold_up_events(open_rig: Open) -> None:
    """Between two pieces of its computation whatever waits is read, and it is whole in the end."""
    rig = await open_rig(max_batch=2)
    lines = "\n".join(f"- talk of number {n} and what follows from it" for n in range(120))
    long = make_rubric("policy", f"Judge this.\n\n### Policy\n{lines}", ("number",))
    engine, queue = rig.judge._device.engine(None), rig.judge._scheduler
    forward, done, ready = engine.forward.run, list[str](), threading.Event()

    def noted(rows: Any, **kwargs: Any) -> Any:
        done.append("piece" if len(rows) == 1 and len(rows[0].ids) >= 500 else "batch")
        return forward(rows, **kwargs)

    rig.device.before = lambda _: ready.wait(WAIT_S)
    short = [asyncio.create_task(rig.judge.judge(request(f"n {n}"))) for n in range(12)]
    live = asyncio.create_task(rig.judge.prepare(long))
    deadline = time.monotonic() + WAIT_S
    async with asyncio.timeout(WAIT_S):
        while not (queue._operations and queue.waiting() >= 8):
            assert time.monotonic() < deadline, "they never queued"
            await asyncio.sleep(0.01)
        engine.forward.run = noted
        ready.set()
        await asyncio.gather(live, *short)
    pieces = [place for place, what in enumerate(done) if what == "piece"]
    assert len(pieces) == 2
    assert "batch" in done[pieces[0] : pieces[1]]
    misses = engine.prefixes.misses
    judged = await rig.judge.judge(request("Hello", rubric=long))
    assert engine.prefixes.misses == misses, "it was not whole"
    prompter = Prompter(rig.judge.checkpoint, context_budget=0)
    alone = oracle.read(
        rig.judge.checkpoint,
        rig.judge.checkpoint.model,
        request("Hello", rubric=long),
        prompter,
    )
    assert judged.user.score == pytest.approx(alone.user.score, abs=1e-4)
