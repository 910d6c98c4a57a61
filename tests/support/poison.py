"""A record that kills its worker, watched until it has passed on."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from tests.support.chaos import Fleet, assert_exactly_once
from tests.support.log_backends import Backend, read, write
from tests.support.log_chaos import ROOT, worker_argv
from worker.records import Output


async def pass_poison(
    backend: Backend, log: Path, values: list[bytes], *, workers: int = 1, deadline_s: float = 120
) -> tuple[dict[bytes, dict[str, Any]], int]:
    """Run workers until every value has its verdict; verdicts by value, and the restarts."""
    await write(
        backend,
        [
            Output(topic=backend.topic, key=b"k%d" % (number % 13), value=value)
            for number, value in enumerate(values)
        ],
    )
    inputs = await read(backend, backend.topic)
    by_source = {(r.topic, r.partition, r.offset): r.value or b"" for r in inputs}
    verdicts = backend.settings.topics.verdicts
    env = {"PYTHONPATH": str(ROOT), "STREAM_WORKER_PAUSE_S": "0.02"}
    fleet = Fleet(worker_argv(backend), workers, log, env=env, cwd=ROOT)
    deadline = time.monotonic() + deadline_s
    try:
        while len(outputs := await read(backend, verdicts)) < len(values):
            assert time.monotonic() < deadline, f"{len(outputs)} of {len(values)} verdicts"
            fleet.tend()
            await asyncio.sleep(0.1)
    finally:
        fleet.stop()
    assert_exactly_once(inputs, outputs)
    answers = {}
    for record in outputs:
        verdict = json.loads(record.value or b"")
        source = verdict["source"]
        answers[by_source[source["topic"], source["partition"], source["offset"]]] = verdict
    return answers, fleet.restarts
