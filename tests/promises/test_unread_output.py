"""A log that nobody reads is the operator's loss, not the events'."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess

PIPE_BYTES = 64 * 1024
LINE_BYTES = 400
"""Less than any event's line has."""


async def test_a_worker_whose_output_nobody_reads_judges_on_and_ends_when_told(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """A log shipper that hangs fills the pipe: judging, probes and SIGTERM go on."""
    count = 2 * PIPE_BYTES // LINE_BYTES
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with WorkerProcess(place.config, fifo) as worker:

            def ready() -> bool:
                return worker.get("/readyz")[0] == 200

            async with asyncio.timeout(120):
                while not await asyncio.to_thread(ready):
                    assert worker.process.poll() is None
            await place.write([said("hello", number) for number in range(count)])
            await place.until(count)
            assert await asyncio.to_thread(ready)
            assert await asyncio.to_thread(worker.terminate) == 0
    finally:
        os.close(reader)
