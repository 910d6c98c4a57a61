"""The pipeline beside its rivals on one broker: ratios of events per second in one run."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import orjson

from moderation_tools.bench.load import EVENT_BYTES, bench_settings, make_outputs, write_load
from worker.errors import FatalError

NAMES = ("worker", "aiokafka", "faust")
MEMORY_FROM, MEMORY_TO = 50_000, 300_000
Say = Callable[[str], None]


class PipelineResult(msgspec.Struct, frozen=True, kw_only=True):
    """Events per second, and microseconds of its own CPU an event, of every contender and round."""

    rates: dict[str, list[float]]
    cpu_us: dict[str, list[float]]

    def ratio(self, rival: str) -> float:
        """The worker's median rate over the rival's."""
        worker = statistics.median(self.rates["worker"])
        return worker / statistics.median(self.rates[rival])


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Resident bytes of the worker process, by events judged."""

    rss: dict[int, int]

    @property
    def growth(self) -> float:
        """Growth from the 50,000th event to the highest afterwards, as a share."""
        after = [size for events, size in self.rss.items() if events > MEMORY_FROM]
        return max(after) / self.rss[MEMORY_FROM] - 1


class _Sink(BaseHTTPRequestHandler):
    """Takes whatever telemetry is exported, as a Collector beside the worker would."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def _collector() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


async def compare(bootstrap: str, events: int, rounds: int, say: Say) -> PipelineResult:
    """Run every contender ``rounds`` times, in turn, over the same ``events`` records."""
    topic = f"bench.input.{os.getpid()}"
    say(f"writing {events} events of {EVENT_BYTES} bytes")
    await write_load(bench_settings(bootstrap, "load"), topic, events)
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    cpu_us: dict[str, list[float]] = {name: [] for name in NAMES}
    say("a first round warms the broker and is not counted")
    for number in range(rounds + 1):
        first = number % len(NAMES)  # what runs after what must not decide
        for name in NAMES[first:] + NAMES[:first]:
            found = await _run(name, bootstrap, topic, f"{os.getpid()}-{number}", events)
            if number == 0:
                continue
            rates[name].append(events / found["seconds"])
            cpu_us[name].append(found["cpu_seconds"] / events * 1e6)
            rate, cpu = rates[name][-1], cpu_us[name][-1]
            say(f"round {number}  {name:9} {rate:9.0f} events/s {cpu:6.0f} us of CPU an event")
    return PipelineResult(rates=rates, cpu_us=cpu_us)


async def memory(bootstrap: str, say: Say, events: int = MEMORY_TO) -> MemoryResult:
    """Resident memory of the worker over ``events`` events."""
    topic = f"bench.memory.{os.getpid()}"
    say(f"writing {events} events")
    await write_load(bench_settings(bootstrap, "load"), topic, events)
    found = await _run("worker", bootstrap, topic, f"memory-{os.getpid()}", events)
    return MemoryResult(rss={int(count): rss for count, rss in found["rss"].items()})


async def _run(name: str, bootstrap: str, topic: str, run: str, events: int) -> dict[str, Any]:
    run = f"{name}-{run}"
    await make_outputs(bench_settings(bootstrap, run))
    with _collector() as endpoint:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "moderation_tools.bench.contenders"),
            *(name, bootstrap, topic, run, str(events)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        )
        out, _ = await process.communicate()
    if process.returncode != 0 or not out:
        raise FatalError(f"contender {name} ended with code {process.returncode}")
    found: dict[str, Any] = orjson.loads(out.splitlines()[-1])
    return found


def table(result: PipelineResult) -> str:
    """The comparison in Markdown."""
    lines = [
        "| pipeline | guarantee | events/s, median | worker's ratio to it | CPU, µs an event |",
        "| --- | --- | --- | --- | --- |",
    ]
    kinds = {"worker": "exactly once", "aiokafka": "exactly once", "faust": "at least once"}
    titles = {
        "worker": "this worker, whole pipeline",
        "aiokafka": "bare aiokafka loop",
        "faust": "bare Faust agent",
    }
    for name in NAMES:
        rate = statistics.median(result.rates[name])
        ratio = f"{result.ratio(name):.2f} x"
        cpu = statistics.median(result.cpu_us[name])
        lines.append(f"| {titles[name]} | {kinds[name]} | {rate:,.0f} | {ratio} | {cpu:.0f} |")
    return "\n".join(lines)
