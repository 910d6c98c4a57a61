"""Faults: what one context causes stays with it, what the device causes is no event's fault."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import torch

from tests.judge.conformance import check, request
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, FatalError, Undecided
from worker.images import JudgeImage
from worker.judge.local.loading import encoder
from worker.judge.local.requests import ScoreRequest
from worker.judge.watchdog import HUNG_DEVICE_EXIT
from worker.judgement import Judgement, JudgeRequest

Open = Callable[..., Awaitable[Any]]
MARK = "xyzzy"


def marked(rig: Any, asks: Sequence[ScoreRequest]) -> bool:
    mark = tuple(encoder(rig.judge.checkpoint.tokenizer)(f"a {MARK} b"))[1:-1]
    return any(
        ask.context.ids[n : n + len(mark)] == mark
        for ask in asks
        for n in range(len(ask.context.ids))
    )


async def judge_all(rig: Any, asked: Sequence[JudgeRequest]) -> list[Any]:
    return await asyncio.gather(*(rig.judge.judge(each) for each in asked), return_exceptions=True)


def with_one_marked(count: int = 9, place: int = 4) -> list[JudgeRequest]:
    return [request(f"a {MARK} b" if n == place else f"number {n}") for n in range(count)]


async def test_out_of_memory_halves_the_batch_until_it_fits(open_rig: Open) -> None:
    """Every context is judged; no batch that fits is torn further than it has to be."""
    rig = await open_rig()

    def before(asks: Sequence[ScoreRequest]) -> None:
        if len(asks) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    rig.device.before = before
    judged = await judge_all(rig, [request(f"number {n}") for n in range(16)])
    assert all(isinstance(each, Judgement) for each in judged)
    assert max(rig.device.batches) > 3


@pytest.mark.parametrize("piece", [4096, 64])
async def test_memory_that_is_there_again_judges_the_one_that_found_none(
    open_rig: Open, piece: int
) -> None:
    """One context alone cannot be halved, nor a piece of a long one; it is tried once more."""
    rig = await open_rig(prefill_tokens=piece)
    failed: list[str] = []
    forward = rig.judge._device.engine(None).forward
    run = forward.run

    def once(*args: Any, **kwargs: Any) -> Any:
        if not failed:
            failed.append("here")
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*args, **kwargs)

    forward.run = once
    asked = request("and on and on " * 60)
    check(await rig.judge.judge(asked), asked)
    assert failed


async def test_a_context_too_large_for_the_device_alone_is_undecided(open_rig: Open) -> None:
    rig = await open_rig()

    def before(asks: Sequence[ScoreRequest]) -> None:
        if marked(rig, asks):
            raise torch.OutOfMemoryError("CUDA out of memory")

    rig.device.before = before
    judged = await judge_all(rig, with_one_marked())
    assert [isinstance(each, Judgement) for each in judged].count(True) == 8
    assert isinstance(judged[4], Undecided)
    assert judged[4].reason is UndecidedReason.OUT_OF_MEMORY


async def test_one_bad_request_does_not_harm_its_neighbours(open_rig: Open) -> None:
    """An error of unknown cause is traced to the one context that raises it."""
    rig = await open_rig()

    def before(asks: Sequence[ScoreRequest]) -> None:
        if marked(rig, asks):
            raise ValueError("something about user content that must not be quoted")

    rig.device.before = before
    judged = await judge_all(rig, with_one_marked())
    assert [isinstance(each, Judgement) for each in judged].count(True) == 8
    assert judged[4].reason is UndecidedReason.INTERNAL_ERROR
    assert "user content" not in str(judged[4])


async def test_a_bug_of_the_device_thread_is_fatal_to_what_it_had_in_hand(open_rig: Open) -> None:
    """Not only to what comes next: nothing may wait for an answer that never comes."""
    rig = await open_rig()
    rig.device.read = lambda *_: []  # one result too few
    async with asyncio.timeout(20):
        with pytest.raises(FatalError):
            await rig.judge.judge(request())


@pytest.mark.parametrize("engine", ["packed", "plain"])
async def test_logits_that_are_not_finite_are_undecided_and_never_safe(
    open_rig: Open, engine: str
) -> None:
    """NaN in one row is that row's; the neighbours' scores stay what they were."""
    rig = await open_rig(engine=engine)
    asked = with_one_marked()
    before = await judge_all(rig, asked)
    mark = encoder(rig.judge.checkpoint.tokenizer)(f"a {MARK} b")[3]

    def poison(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((args[0] == mark)[..., None], float("nan"))

    embed = rig.judge.checkpoint.model.get_input_embeddings()
    handle = embed.register_forward_hook(poison)
    after = await judge_all(rig, asked)
    handle.remove()
    assert after[4].reason is UndecidedReason.NOT_FINITE
    for index in (0, 1, 2, 3, 5, 6, 7, 8):
        assert after[index].user.score == pytest.approx(before[index].user.score, abs=1e-5)


@pytest.mark.parametrize("token", ["safe", "unsafe", "another"])
@pytest.mark.parametrize("engine", ["packed", "plain"])
async def test_an_infinite_logit_is_undecided_of_whatever_token(
    open_rig: Open, engine: str, token: str
) -> None:
    """Of one that is no label too: it leaves the labels no probability that means anything."""
    rig = await open_rig(engine=engine)
    place = getattr(rig.judge.checkpoint.answer, token, 5)
    poisoned: list[bool] = []

    def before(asks: Sequence[ScoreRequest]) -> None:
        poisoned[:] = [marked(rig, asks)]

    def poison(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        if poisoned[0]:
            output[..., place] = float("inf")
        return output

    rig.device.before = before
    handle = rig.judge.checkpoint.model.lm_head.register_forward_hook(poison)
    with pytest.raises(Undecided) as caught:
        await rig.judge.judge(request(f"a {MARK} b"))
    handle.remove()
    assert caught.value.reason is UndecidedReason.NOT_FINITE


@pytest.mark.parametrize("engine", ["packed", "plain"])
async def test_a_device_whose_every_number_is_none_is_away_and_blames_no_event(
    open_rig: Open, engine: str
) -> None:
    """Events wait and are judged once it computes again; none is held for it."""
    rig = await open_rig(engine=engine)
    handle = rig.judge.checkpoint.model.lm_head.register_forward_hook(
        lambda _, __, output: output * float("nan")
    )
    found = await judge_all(rig, [request(f"number {n}") for n in range(3)])
    assert [type(each) for each in found] == [DependencyUnavailable] * 3
    handle.remove()
    check(await rig.judge.judge(request()), request())


async def test_a_lost_device_blames_no_event_and_ends_the_process(open_rig: Open) -> None:
    """The batch in flight is retried elsewhere; everything after it is told to start anew."""
    rig = await open_rig()

    def before(_: Sequence[ScoreRequest]) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    rig.device.before = before
    with pytest.raises(DependencyUnavailable):
        await rig.judge.judge(request())
    with pytest.raises(FatalError):
        await rig.judge.judge(request())


async def test_a_device_that_no_longer_adds_up_is_lost(open_rig: Open) -> None:
    """Whatever the error says: a device that fails the probe afterwards is gone."""
    rig = await open_rig()

    def before(_: Sequence[ScoreRequest]) -> None:
        rig.device.alive = False
        raise ValueError("odd")

    rig.device.before = before
    with pytest.raises(DependencyUnavailable):
        await rig.judge.judge(request())


async def test_a_batch_past_its_deadline_is_unhealthy_and_ends_the_process(open_rig: Open) -> None:
    """A hung call shows in ``stalled_s`` and, past twice the deadline, ends the process."""
    rig = await open_rig(batch_deadline_s=0.1)
    rig.exits.clear()  # the case of the start may have taken longer on a busy machine
    release = threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        release.wait(30.0)

    rig.device.before = before
    asked = asyncio.ensure_future(rig.judge.judge(request()))
    deadline = time.monotonic() + 20.0
    while not rig.exits:
        assert time.monotonic() < deadline, "the watchdog never acted"
        await asyncio.sleep(0.01)
    assert rig.judge.stalled_s() > 0.2
    assert set(rig.exits) == {HUNG_DEVICE_EXIT}
    release.set()
    await asked
    assert rig.judge.stalled_s() == 0.0


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "a lone surrogate \ud800"},
        {"image": JudgeImage(sha256="0", width=900, height=900, rgb=b"too short")},
    ],
)
async def test_a_request_that_cannot_be_prepared_is_undecided_alone(
    open_rig: Open, fields: dict[str, Any]
) -> None:
    rig = await open_rig()
    bad, good = await judge_all(rig, [request(**fields), request()])
    assert bad.reason is UndecidedReason.INTERNAL_ERROR
    check(good, request())


async def test_stopping_finishes_what_is_on_the_device_and_refuses_the_rest(open_rig: Open) -> None:
    rig = await open_rig(max_batch=1)
    entered, release = threading.Event(), threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        entered.set()
        release.wait(30.0)

    rig.device.before = before
    first = asyncio.ensure_future(rig.judge.judge(request("on the device")))
    assert await asyncio.to_thread(entered.wait, 10.0)
    rest = asyncio.ensure_future(judge_all(rig, [request("waiting")] * 3))
    await asyncio.sleep(0.2)
    stopping = asyncio.ensure_future(rig.judge.stop())
    await asyncio.sleep(0)
    release.set()
    await stopping
    check(await first, request())
    assert all(isinstance(each, DependencyUnavailable) for each in await rest)
