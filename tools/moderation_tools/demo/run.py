"""The demonstration from start to summary: a worker process, a script, verdicts as they come."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from moderation_tools.demo.place import leave_settings_out, prepare, require_free
from moderation_tools.demo.produce import make_topics, outputs
from moderation_tools.demo.scenario import Scripted, script
from moderation_tools.demo.show import Show
from worker.contracts.dead_letter import DeadLetter, parse_dead_letter
from worker.contracts.verdict import Verdict
from worker.errors import FatalError
from worker.log.factory import open_reader, open_writer
from worker.log.reader import TopicReader
from worker.records import Record
from worker.settings import Settings, load_settings

START_S = 120.0
"""Longest the worker may take to load its model on a slow machine."""
SILENCE_S = 60.0
"""Longest wait for the next verdict before the demonstration gives up."""
LOOK_EVERY_S = 0.1
BURST = 6
"""Records written at a time, so that verdicts are seen to come."""


async def run_demo(directory: Path, port: int, *, as_json: bool, stay: bool) -> int:
    """Run everything; exit code 0 when every record ended in exactly one place.

    Raises:
        ConfigurationError: the port is taken, or the directory is somebody else's.
        FatalError: the worker did not come up.
    """
    began = time.monotonic()
    leave_settings_out()
    require_free(port)
    config = prepare(directory, port)
    settings = load_settings(config)
    topics = await make_topics(settings)
    records = script()
    show = Show(records, as_json=as_json)
    log = directory / "worker.log"
    process = await _spawn(config, log)
    try:
        show.note(f"starting the worker (its log: {log})")
        await _ready(process, port, log)
        show.note(f"ready after {time.monotonic() - began:.1f} s; {len(records)} records to judge")
        complete = await _stream(settings, records, topics, process, show)
        show.summary(time.monotonic() - began)
        if stay:
            show.note(f"console: http://127.0.0.1:{port}   Ctrl-C ends the worker")
            await _interrupted(process)
        return 0 if complete else 1
    finally:
        await _end(process)


async def _spawn(config: Path, log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as stream:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "run", "--config", str(config)),
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then drains it
        )


async def _ready(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while missing := await asyncio.to_thread(_missing, f"http://127.0.0.1:{port}/readyz"):
        if process.returncode is not None:
            tail = await asyncio.to_thread(_last_lines, log)
            raise FatalError(f"the worker ended with code {process.returncode}:\n{tail}")
        if time.monotonic() > deadline:
            raise FatalError(
                f"the worker was not ready after {START_S:.0f} s: {missing}; its log: {log}"
            )
        await asyncio.sleep(LOOK_EVERY_S)


def _last_lines(log: Path) -> str:
    """What the worker said last to a person, else its last lines whatever they are."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.startswith("error:")] or lines[-5:])


def _missing(url: str) -> str:
    """What the worker says it is waiting for; empty when it is ready."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own address
            return ""
    except urllib.error.HTTPError as error:
        with error:
            problems = json.loads(error.read() or b"{}").get("problems", [])
        return "; ".join(problem["detail"] for problem in problems) or str(error)
    except (OSError, ValueError):
        return "it does not answer yet"


async def _stream(
    settings: Settings,
    records: list[Scripted],
    topics: dict[str, str],
    process: asyncio.subprocess.Process,
    show: Show,
) -> bool:
    """Write the script and show what comes of it; whether every record came back."""
    writing = asyncio.create_task(_write(settings, records, topics))
    try:
        names = settings.topics
        async with open_reader(settings) as reader:
            # Quarantine last: when its verdict was seen, a held record is there too.
            topics_out = (names.verdicts, names.dead_letter, names.quarantine)
            followed = Follower(reader, topics_out, names.partitions)
            last = time.monotonic()
            while not show.complete:
                async for record in followed.new():
                    last = time.monotonic()
                    _show(record, settings, show)
                if process.returncode is not None or time.monotonic() - last > SILENCE_S:
                    return False
                await asyncio.sleep(LOOK_EVERY_S)
        return True
    finally:
        await writing


async def _write(settings: Settings, records: list[Scripted], topics: dict[str, str]) -> None:
    written = outputs(records, topics)
    async with open_writer(settings) as writer:
        for start in range(0, len(written), BURST):
            await writer.write(written[start : start + BURST])
            await asyncio.sleep(LOOK_EVERY_S)


class Follower:
    """Reads topics again and again, each record once."""

    def __init__(self, reader: TopicReader, topics: tuple[str, ...], partitions: int) -> None:
        self._reader = reader
        self._topics = topics
        self._partitions = partitions
        self._next: dict[tuple[str, int], int] = {}

    async def new(self) -> AsyncIterator[Record]:
        """Records that were not there at the last call."""
        for topic in self._topics:
            for partition in range(self._partitions):
                start = self._next.get((topic, partition), 0)
                async for record in self._reader.read(topic, partition=partition, start=start):
                    self._next[topic, partition] = record.offset + 1
                    yield record


def _show(record: Record, settings: Settings, show: Show) -> None:
    if record.topic == settings.topics.verdicts:
        show.verdict(msgspec.json.decode(record.value or b"", type=Verdict))
    elif record.topic == settings.topics.dead_letter:
        letter: DeadLetter = parse_dead_letter(record)
        show.dead_letter(letter)
    else:
        show.quarantined += 1


async def _interrupted(process: asyncio.subprocess.Process) -> None:
    """Return at Ctrl-C, or when the worker ends by itself."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        waits = {asyncio.create_task(stop.wait()), asyncio.create_task(process.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the worker drain; take it down where it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 15)
    except TimeoutError:
        process.kill()
        await process.wait()
