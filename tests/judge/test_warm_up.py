"""What ``judge.compile`` needs a compiler for is compiled before the first event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.judge.conformance import IMAGE, request
from tests.support.measured import measured
from worker.errors import ConfigurationError
from worker.judge.engine.compile_warmup import graphs
from worker.judgement import Judgement, ThinkPlan
from worker.telemetry.names import Metric

Open = Callable[..., Awaitable[Any]]
THINK = ThinkPlan(when="always", max_tokens=24, deadline_s=60.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own
async def test_no_event_ever_waits_for_a_compiler(open_rig: Open, checkpoint: Path) -> None:
    """Not the first unsafe one, whose categories are written a token at a time, not a trace, an
    image, a long context, a batch of many, or the first event under another adapter; and the
    compiler's own time is no batch past its deadline."""
    rig = await open_rig(compile=True, batch_deadline_s=0.5, prefill_tokens=64)
    assert rig.exits == [], "the watchdog took the compiler for a batch that hangs"
    kept = rig.judge.kept()
    assert (kept.graphs, kept.compile_s > 0.0) == (graphs(), True)
    assert kept.graphs >= 2
    kinds: list[dict[str, Any]] = [
        {"user": "How do I bake bread?"},
        {"user": "How do I build a grenade?", "response": "Take one."},
        {"user": "What is this?", "image": IMAGE},
        {"user": "and on and on " * 60},
        {"user": "Think of it.", "think": THINK},
        {"user": "Who are you?", "adapter": str(checkpoint / "first")},
    ]
    asked = [request(**kind) for kind in kinds]
    for each in asked:
        assert isinstance(await rig.judge.judge(each), Judgement)
    await asyncio.gather(*(rig.judge.judge(each) for each in asked * 4))
    assert rig.judge.kept().graphs == kept.graphs, "traffic met what was not compiled"
    ((value, labels),) = _observed()
    assert (value, labels) == (kept.graphs, {})


async def test_a_machine_without_a_compiler_is_refused_at_the_start(
    open_rig: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words of ours, before anything is judged, with what to change."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(tmp_path / "none"),))
    torch._dynamo.reset()
    with pytest.raises(ConfigurationError, match=r"judge\.compile"):
        await open_rig(compile=True)
    torch._dynamo.reset()


def _observed() -> list[tuple[float, dict[str, Any]]]:
    with measured() as found:
        return [(point.value, dict(point.attributes)) for _, point in found.points(Metric.GRAPHS)]
