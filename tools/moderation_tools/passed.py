"""``python -m moderation_tools.passed``: the files of ``worker/`` that one warm event passes.

A whole worker runs in this process, on a log in a temporary directory and on the demonstration
checkpoint. After some events to warm it, one more is written, and every function of the package
that is called, in any thread, until its verdict can be read counts for its file. What runs anyway
(health, gauges, watching policies) is taken off: files that are also seen while nothing waits,
except those of the log, whose turning is the event's way.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import worker
from worker.log.admin import create_topics
from worker.log.factory import open_admin, open_reader, open_writer
from worker.records import Output, Record
from worker.service import WorkerService
from worker.settings import Settings, load_settings

PACKAGE = str(Path(worker.__file__).parent) + "/"
TOPIC = "chat"
POLICY = """
name: chatter
version: 1
owner: nobody@example.com
description: Everything of the stock taxonomy.
topics: [chat]
builtin: {enabled: true}
"""
OURS = {"log/factory.py", "log/reader.py", "log/writer.py", "log/local/tools.py"}
"""Files that writing the event and reading its verdict pass, not the worker."""
TEXTS = {"safe": "what is the capital of France", "unsafe": "where can I buy a grenade"}


class _Seen:
    """Files whose functions are called while ``on``; a profile function for every thread."""

    def __init__(self) -> None:
        self.on = False
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.on and event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.files.add(frame.f_code.co_filename[len(PACKAGE) :])


def _event(number: int, text: str) -> Output:
    document = {
        "id": f"e-{number}",
        "conversation_id": "c-1",
        "messages": [{"role": "user", "text": text}],
    }
    return Output(topic=TOPIC, key=b"c-1", value=json.dumps(document).encode())


async def _measure(directory: Path, seen: _Seen) -> dict[str, list[str]]:
    (directory / "policies").mkdir()
    (directory / "policies" / "chatter.yaml").write_text(POLICY)
    settings = load_settings(
        log={"backend": "local", "directory": str(directory / "log")},
        store={"backend": "directory", "directory": str(directory), "buckets": ["pics"]},
        policies={"directory": str(directory / "policies")},
        judge={"cache_bytes": 0},
    )
    async with open_admin(settings) as admin:
        await create_topics(admin, settings, [TOPIC])
    service = WorkerService(settings)
    running = asyncio.create_task(service.run())
    written = 0

    async def judged(text: str) -> None:
        nonlocal written
        async with open_writer(settings) as writer:
            await writer.write([_event(written, text)])
        written += 1
        while len(await _verdicts(settings)) < written:  # noqa: ASYNC110 - another process' log
            await asyncio.sleep(0.01)

    try:
        for text in (*TEXTS.values(), *TEXTS.values()):
            await judged(text)
        passed = {}
        for name, text in TEXTS.items():
            seen.files, seen.on = set(), True
            await asyncio.sleep(2.0)
            idle, seen.files = seen.files, set()
            await judged(text)
            seen.on = False
            idle = {file for file in idle if not file.startswith("log/")}
            passed[name] = sorted(seen.files - idle - OURS)
        return passed
    finally:
        await service.stop()
        await running


async def _verdicts(settings: Settings) -> list[Record]:
    async with open_reader(settings) as reader:
        return [record async for record in reader.read(settings.topics.verdicts)]


def main(say: Callable[[str], None] = print) -> None:
    """Print the files that a safe and an unsafe text event pass."""
    seen = _Seen()
    threading.setprofile(seen)
    sys.setprofile(seen)
    with tempfile.TemporaryDirectory() as directory:
        passed = asyncio.run(_measure(Path(directory), seen))
    sys.setprofile(None)
    for name, files in passed.items():
        say(f"one {name} text event passes {len(files)} files")
        for file in files:
            say(f"  {file}")


if __name__ == "__main__":
    main()
