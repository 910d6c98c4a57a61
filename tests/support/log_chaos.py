"""Chaos over a log backend: fill its topic, torment workers on it, count the verdicts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.chaos import Fleet, assert_exactly_once, source_of, torment
from tests.support.log_backends import Backend, read, write
from worker.records import Output, Record

ROOT = Path(__file__).resolve().parents[2]


def worker_argv(backend: Backend) -> list[str]:
    """The small test worker on this backend's settings."""
    dumped: dict[str, Any] = backend.settings.model_dump(mode="json")
    sections = ("log", "kafka", "topics", "stream", "delivery")
    chosen = json.dumps({name: dumped[name] for name in sections})
    return [sys.executable, "-m", "tests.support.stream_worker", chosen, backend.topic]


async def fill(backend: Backend, start: int, stop: int, chunk: int = 500) -> None:
    """Write the records numbered from ``start`` up to ``stop`` over all partitions."""
    for first in range(start, stop, chunk):
        await write(
            backend,
            [
                Output(topic=backend.topic, key=b"c%d" % (number % 97), value=b"%d" % number)
                for number in range(first, min(first + chunk, stop))
            ],
        )


async def survive(
    backend: Backend,
    log: Path,
    portion: int,
    *,
    workers: int,
    seed: int,
    strikes: int,
    gap_s: tuple[float, float],
    freeze_s: tuple[float, float] | None,
    pause_s: float,
    argv: Sequence[str] | None = None,
    deadline_s: float = 480.0,
    check: Callable[[Sequence[Record], Sequence[Record]], object] = assert_exactly_once,
) -> Fleet:
    """Fill, torment, and check that every record has exactly one verdict, in order."""
    verdicts = backend.settings.topics.verdicts

    async def feed(start: int, stop: int) -> None:
        await fill(backend, start, stop)

    async def progress() -> int:
        return len({source_of(record) for record in await read(backend, verdicts)})

    env = {"STREAM_WORKER_PAUSE_S": str(pause_s), "PYTHONPATH": str(ROOT)}
    fleet = Fleet(argv or worker_argv(backend), workers, log, env=env, cwd=ROOT)
    try:
        await torment(
            fleet, progress, feed, portion,
            seed=seed, strikes=strikes, gap_s=gap_s, freeze_s=freeze_s, deadline_s=deadline_s,
        )  # fmt: skip
    finally:
        fleet.stop()
    check(await read(backend, backend.topic), await read(backend, verdicts))
    return fleet
