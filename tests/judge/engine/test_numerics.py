"""Coarser numbers label the demonstration checkpoint's held-out cases as fp32 does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.remote_judges import Agreement, compare, held_out
from worker.errors import Undecided
from worker.judge.engine import quantization as matrix
from worker.judge.local.judge import LocalJudge
from worker.judgement import Judgement, JudgeRequest
from worker.settings import JudgeSettings

KINDS = ("builtin", "suppressed", "taxonomy", "policy", "response", "image", "folded")
EACH = 60
BARS = {"bfloat16": 0.995, "int8": 0.99, "int8 bfloat16": 0.99, "w8a16": 0.99, "fp8": 0.99}
"""Least share of cases whose labels agree; what cannot be decided in one of both does not."""
SETTINGS: dict[str, dict[str, str]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "int8 bfloat16": {"numerics": "int8", "dtype": "bfloat16"},
}
"""The others are ``numerics`` over a float32 model."""


def cases() -> list[JudgeRequest]:
    return [request for kind in KINDS for request in held_out(kind, EACH)]


async def judged(**settings: Any) -> list[Judgement | Undecided]:
    """Every case, judged with these settings."""
    fixed = {"model": "tiny", "device": "cpu", "dtype": "float32", "batch_deadline_s": 300.0}
    judge = LocalJudge(JudgeSettings.model_validate(fixed | settings))
    await judge.start()

    async def one(request: JudgeRequest) -> Judgement | Undecided:
        try:
            return await judge.judge(request)
        except Undecided as error:
            return error

    try:
        return list(await asyncio.gather(*(one(request) for request in cases())))
    finally:
        await judge.stop()


@pytest.fixture(scope="module")
def reference() -> list[Judgement | Undecided]:
    """What fp32 says."""
    return asyncio.run(judged())


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("numbers", BARS)
def test_labels_agree_with_fp32(
    reference: list[Judgement | Undecided],
    numbers: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    """fp8 goes through the same product here that Hopper runs: torch imitates it on a CPU."""
    if numbers == "fp8":
        monkeypatch.setattr(matrix, "fp8_pays", lambda _: True)
    settings = SETTINGS.get(numbers, {"numerics": numbers})
    found = compare(reference, asyncio.run(judged(**settings)))
    figures = described(numbers, found)
    record_property("figures", figures)
    print(figures)
    assert found.labels >= BARS[numbers] * found.count, figures
    assert found.furthest > 0.0, "nothing was computed in other numbers"


def described(numbers: str, found: Agreement) -> str:
    share = found.labels / found.count
    return (
        f"{numbers}: {found.labels} of {found.count} labels ({share:.1%}), "
        f"{found.categories} category lines, {found.floor} floors, "
        f"{found.undecided} undecided; "
        f"largest difference of a score {found.furthest:.3f}"
    )
