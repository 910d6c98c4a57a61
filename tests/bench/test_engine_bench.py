"""The engine's bench runs where little is installed, and counts what it measures."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moderation_tools.bench.engine.__main__ import main
from moderation_tools.bench.engine.steady import marks
from moderation_tools.bench.engine.verdicts import Rig
from moderation_tools.bench.engine.workload import Lengths, Workload
from worker.judge.engine.backends import make
from worker.judge.engine.forward import Forward
from worker.judge.engine.model import TextWeights
from worker.judge.local.loading import load
from worker.settings import JudgeSettings

NOT_NEEDED = ("msgspec", "pydantic", "opentelemetry", "aiokafka", "faust", "peft", "orjson")
"""What a machine with torch, transformers, pillow and numpy may lack."""


def test_the_engines_bench_needs_only_torch_and_transformers() -> None:
    """A machine with a GPU and nothing of the worker's other libraries can run it."""
    code = (
        "import sys; import moderation_tools.bench.engine.__main__; "
        f"print([name for name in {NOT_NEEDED!r} if name in sys.modules])"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert imported.stdout.strip() == "[]"


def test_every_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """One event each, on the bundled checkpoint: a smoke test of what ``make bench`` runs."""
    arguments = "--model tiny --events 2 --batch 2 --rounds 1 --turns 1 --traces 3 --together 2"
    arguments += " --threads 1 --device cpu --dtype float32 --tables generate costs think"
    main(arguments.split())
    printed = capsys.readouterr().out
    for row in ("| 320 tokens |", "| 50 policies of 320 |", "| 3 tokens |"):
        assert row in printed


def test_one_command_prints_what_a_card_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Text, mixed policies, images and THINK in every numerics, the share of the device's own
    matrix products, memory, and latency at all loads; whatever device and shape it is."""
    arguments = "--shape small --random-weights --events 2 --batch 2 --rounds 1 --turns 1 --traces"
    arguments += " 3 --together 2 --threads 1 --device cpu --numerics model int8"
    main([*arguments.split(), "--tables", "generate", "rates", "load"])
    printed = capsys.readouterr().out
    plain, coarse = printed.split("numerics int8:")
    for rows in (plain, coarse):
        for kind in ("text, a policy of 1,000", "text, 50 policies", "an image", "THINK, a trace"):
            assert f"| {kind}" in rows
        assert "GFLOP/s" in rows
        assert "memory at most:" in rows
        for percent in (10, 25, 50, 80, 95, 100):
            assert f"| {percent} % |" in rows
    assert "generate verdicts/s" in plain
    assert "generate verdicts/s" not in coarse, "the plain model has no weights left"


def test_cost_and_memory_are_marked_along_a_stream() -> None:
    """Each mark speaks of the batches since the one before."""
    found = list(marks(torch.device("cpu"), [40, 80]))
    assert [mark.events for mark in found] == [40, 80]
    assert all(mark.cpu > 0 and mark.resident > 2**20 for mark in found)


def test_flops_are_those_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost model of a verdict lies within 5 % of what torch counts in a forward."""
    # Fused attention and oneDNN's product are not counted; their equals are.
    monkeypatch.setattr("worker.judge.engine.quantization._ONEDNN", False)
    model = load(JudgeSettings(model="tiny")).model
    weights = TextWeights(model)
    rig = Rig(model, Forward(weights, make("reference", weights)))
    lengths = Lengths(320)
    rows = Workload(rig.vocabulary, lengths).rows(rig.prefixes(), 4)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        rig.forward.run(rows)
    assert counter.get_total_flops() / 4 == pytest.approx(rig.flops(lengths), rel=0.05)
