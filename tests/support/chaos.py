"""Worker processes that are killed, frozen and woken at random moments, and the count at the end.

The command line is the caller's, so the same chaos runs over a small test worker and the real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from worker.records import Record

Source = tuple[str, int, int]


class Fleet:
    """``count`` processes of ``argv``; one that ends is started again, whatever it ended of."""

    def __init__(
        self,
        argv: Sequence[str],
        count: int,
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._argv = list(argv)
        self._log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._frozen: dict[int, float] = {}
        self.kills = 0
        self.freezes = 0
        self.restarts = 0
        self.processes = [self._spawn() for _ in range(count)]

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._argv, stdout=log, stderr=log, env=self._env, cwd=self._cwd
            )

    def tend(self) -> None:
        """Wake whoever has slept long enough, replace whoever ended."""
        now = time.monotonic()
        for pid, until in list(self._frozen.items()):
            if now >= until:
                del self._frozen[pid]
                os.kill(pid, signal.SIGCONT)
        for index, process in enumerate(self.processes):
            if process.poll() is not None:
                self._frozen.pop(process.pid, None)
                self.processes[index] = self._spawn()
                self.restarts += 1

    def kill(self, index: int) -> None:
        """kill -9, the process is replaced at the next ``tend``."""
        self.processes[index].kill()
        self.processes[index].wait()
        self.kills += 1

    def freeze(self, index: int, seconds: float) -> None:
        """SIGSTOP now, SIGCONT after ``seconds``."""
        pid = self.processes[index].pid
        if pid not in self._frozen:
            os.kill(pid, signal.SIGSTOP)
            self._frozen[pid] = time.monotonic() + seconds
            self.freezes += 1

    def log_tail(self, size: int = 4000) -> str:
        """The end of what the processes wrote."""
        return self._log.read_text(errors="replace")[-size:]

    def wake(self) -> None:
        """SIGCONT to everybody who sleeps."""
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self._frozen.clear()

    def stop(self) -> list[int]:
        """Wake everybody, ask to end (SIGTERM), insist after a while; the exit codes."""
        self.wake()
        for process in self.processes:
            process.terminate()
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(30))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        return codes


async def torment(
    fleet: Fleet,
    progress: Callable[[], Awaitable[int]],
    feed: Callable[[int, int], Awaitable[None]],
    portion: int,
    *,
    seed: int,
    strikes: int,
    gap_s: tuple[float, float],
    freeze_s: tuple[float, float] | None,
    deadline_s: float,
) -> int:
    """Strike ``strikes`` times at seeded random moments, then let the fleet end its work.

    ``feed(start, stop)`` writes the input numbered so: the first ``portion``, and one more where a
    fast machine would be done before the last strike, so that each strike hits a fleet that has
    work left. Every third strike freezes (where ``freeze_s`` says how long), the others kill. A
    freeze waits until work goes on, so that the sleeper holds something, and nobody else is struck
    until it wakes, so that its partitions are taken over meanwhile. Returns how much was fed;
    fails after ``deadline_s``.
    """
    dice = random.Random(seed)
    deadline = time.monotonic() + deadline_s
    struck, reached, total = 0, 0, portion
    await feed(0, total)
    next_strike = time.monotonic() + dice.uniform(*gap_s)
    next_look = 0.0
    while True:
        now = time.monotonic()
        if now >= deadline:
            pytest.fail(
                f"{await progress()} of {total} after {deadline_s} s and {struck} strikes; "
                f"{fleet.restarts} restarts; the workers' log ends:\n{fleet.log_tail()}"
            )
        if struck < strikes and now >= next_strike:
            count = await progress()
            freezing = freeze_s is not None and struck % 3 == 2
            if count + portion / 4 >= total:
                await feed(total, total + portion)
                total, next_strike = total + portion, now + 0.2  # strike when work goes on
            elif freezing and count == reached:
                next_strike = now + 0.2
            else:
                victim, asleep = dice.randrange(len(fleet.processes)), 0.0
                if freezing and freeze_s is not None:
                    asleep = dice.uniform(*freeze_s)
                    fleet.freeze(victim, asleep)
                else:
                    fleet.kill(victim)
                struck, reached = struck + 1, count
                next_strike = time.monotonic() + asleep + dice.uniform(*gap_s)
        fleet.tend()
        if struck == strikes and now >= next_look:
            next_look = now + 1.0
            if await progress() >= total:
                return total
        await asyncio.sleep(0.02)


def source_of(record: Record) -> Source:
    """The input a verdict names in its ``source``."""
    source = json.loads(record.value or b"")["source"]
    return source["topic"], source["partition"], source["offset"]


def assert_exactly_once(
    inputs: Sequence[Record],
    outputs: Sequence[Record],
    source: Callable[[Record], Source] = source_of,
) -> None:
    """Every input has one output, none has two, and each key of a partition keeps its order."""
    counts = assert_none_lost(inputs, outputs, source)
    twice = {one: count for one, count in counts.items() if count > 1}
    assert not twice, f"{len(twice)} more than once, such as {sorted(twice.items())[:3]}"
    keys = {(one.topic, one.partition, one.offset): one.key for one in inputs}
    newest: dict[tuple[str, int, bytes | None, str, int], int] = {}
    for record in sorted(outputs, key=lambda one: (one.topic, one.partition, one.offset)):
        topic, partition, offset = source(record)
        key = keys[topic, partition, offset]
        stream = (topic, partition, key, record.topic, record.partition)
        assert offset > newest.get(stream, -1), f"{topic}-{partition}: {offset} out of order"
        newest[stream] = offset


def assert_none_lost(
    inputs: Sequence[Record],
    outputs: Sequence[Record],
    source: Callable[[Record], Source] = source_of,
) -> Counter[Source]:
    """Every input has an output, and no output is without an input; how often each has one."""
    expected = {(record.topic, record.partition, record.offset) for record in inputs}
    counts = Counter(source(record) for record in outputs)
    lost = expected - counts.keys()
    invented = counts.keys() - expected
    assert not lost, f"{len(lost)} of {len(expected)} lost, such as {sorted(lost)[:3]}"
    assert not invented, f"{len(invented)} without an input, such as {sorted(invented)[:3]}"
    return counts
