"""How far verdicts of a vLLM server agree with the local judge.

``python -m tests.support.vllm_agreement [CASES [DTYPE]]`` serves, compares and prints the table.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.remote_judges import Agreement, compare, held_out
from tests.support.vllm_checkpoint import export_merged
from tests.support.vllm_environment import VLLM, install
from tests.support.vllm_server import vllm_serving
from worker.errors import Undecided
from worker.judge.base import Judge
from worker.judge.local.judge import LocalJudge
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import Judgement, JudgeRequest
from worker.settings import JudgeSettings

KINDS = ("builtin", "suppressed", "taxonomy", "policy", "response", "image", "folded", "think")
TOGETHER = 8
"""Requests in flight at a time."""


async def agreement(url: str, count: int, kinds: Sequence[str] = KINDS) -> dict[str, Agreement]:
    """``count`` held-out cases of every kind, judged by both."""
    settings = {"base_url": url, "timeout_s": 59.0, "concurrency": TOGETHER}
    remote = RemoteJudge(JudgeSettings.model_validate({"backend": "remote", "remote": settings}))
    local = LocalJudge(JudgeSettings(model="tiny", dtype="float32", device="cpu"))
    await remote.start()
    try:
        await local.start()
        try:
            found = {}
            for kind in kinds:
                requests = held_out(kind, count)
                found[kind] = compare(await _all(local, requests), await _all(remote, requests))
            return found
        finally:
            await local.stop()
    finally:
        await remote.stop()


async def _all(judge: Judge, requests: Sequence[JudgeRequest]) -> list[Judgement | Undecided]:
    lane = asyncio.Semaphore(TOGETHER)

    async def one(request: JudgeRequest) -> Judgement | Undecided:
        async with lane:
            try:
                return await judge.judge(request)
            except Undecided as undecided:
                return undecided

    return list(await asyncio.gather(*(one(each) for each in requests)))


def table(found: dict[str, Agreement]) -> str:
    """As Markdown; the last column is the largest difference of a score."""
    lines = [
        "| kind | cases | labels equal | categories equal | floor equal | undecided "
        "| traces equal | Δ score |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, each in found.items():
        traces = f"{each.traces} of {each.thoughts}" if each.thoughts else ""
        lines.append(
            f"| {kind} | {each.count} | {each.labels} | {each.categories} | {each.floor} "
            f"| {each.undecided} | {traces} | {each.furthest:.1e} |"
        )
    return "\n".join(lines)


def main(count: int, dtype: str) -> None:
    """Install and serve, compare, print."""
    install()
    with tempfile.TemporaryDirectory() as scratch:
        directory = export_merged(Path(scratch, "tiny"))
        with vllm_serving(directory, Path(scratch, "vllm.log"), dtype=dtype) as url:
            found = asyncio.run(agreement(url, count))
    print(f"vLLM {VLLM}, CPU, {dtype}, against the local judge, float32\n\n{table(found)}")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 40,
        sys.argv[2] if len(sys.argv) > 2 else "float32",
    )
