"""The pipelines that are compared, each run alone in a process of its own.

``python -m moderation_tools.bench.contenders NAME BOOTSTRAP TOPIC RUN COUNT`` reads ``COUNT``
events of ``TOPIC``, writes one output each and prints
 ``{"seconds", "cpu_seconds", "rss": {events: bytes}}``.
The clock runs from the first record read to the last commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO

import orjson
import psutil
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from moderation_tools.bench.load import PARTITIONS, bench_settings
from worker.judge.scripted import ScriptedJudge
from worker.service import WorkerService
from worker.telemetry.logs import configure_logging

RSS_EVERY = 10_000
_ANSWER: dict[str, Any] = {
    "kind": "automatic",
    "supersedes": None,
    "outcome": "safe",
    "action": "allow",
    "user": {"label": "safe", "score": 0.02},
    "response": {"label": "safe", "score": 0.02},
    "categories": [],
    "suppressed": [],
    "images": [],
    "reasoning": None,
    "undecided_reason": None,
    "undecided_detail": None,
    "neutralised": [],
    "context": {"included": 0, "omitted": 0},
    "decided_by": "judge",
    "cached": False,
    "attempts": 1,
    "policy": {"name": "bench", "version": 1, "sha256": "0" * 64},
    "model": {
        "id": "demonstration/scripted",
        "revision": "0" * 64,
        "adapter": None,
        "template_sha256": "0" * 64,
        "numerics": "scripted",
    },
    "shadow_of": None,
    "timings_ms": {"queue": 0.0, "fetch": 0.0, "judge": 0.0, "total": 0.1},
}
"""What a bare loop always says; fields are those of Verdict v1."""
_GIVE_UP_S = 600.0


class Meter:
    """Seconds since the first record, and resident memory along the way."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._began: float | None = None
        self._cpu = 0.0
        self._rss: dict[int, int] = {}
        self._process = psutil.Process()

    def at(self, events: int) -> bool:
        """Note progress; whether all is done."""
        if events:
            self.start()
        step = events // RSS_EVERY * RSS_EVERY
        if step and step not in self._rss:
            self._rss[step] = self._process.memory_info().rss
        return events >= self.count

    def start(self) -> None:
        """The first record was read."""
        if self._began is None:
            self._began, self._cpu = time.monotonic(), time.process_time()

    def report(self) -> None:
        """Print what was measured."""
        assert self._began is not None
        seconds = time.monotonic() - self._began
        cpu = time.process_time() - self._cpu
        rss = {str(events): size for events, size in self._rss.items()}
        out = {"seconds": seconds, "cpu_seconds": cpu, "rss": rss}
        print(orjson.dumps(out).decode(), flush=True)


def _log_sink() -> TextIO:
    """Where log lines go: formatted and written like any others, then gone."""
    return Path(os.devnull).open("w")


async def run_worker(bootstrap: str, topic: str, run: str, meter: Meter) -> None:
    """The worker itself: decode, policy, outcome, telemetry, log lines, exactly once."""
    settings = bench_settings(bootstrap, run)
    sink = _log_sink()
    with tempfile.TemporaryDirectory() as directory:
        policy = {"name": "bench", "version": 1, "owner": "bench@example.com", "topics": [topic]}
        (Path(directory) / "bench.yaml").write_text(yaml.safe_dump(policy))
        policies = settings.policies.model_copy(update={"directory": Path(directory)})
        settings = settings.model_copy(update={"policies": policies})
        configure_logging(settings.telemetry, sink)
        service = WorkerService(settings, judge=ScriptedJudge())
        working = asyncio.create_task(service.run())
        while not meter.at(service.runner.status().events_committed):
            if service.runner.status().inflight_events:
                meter.start()
            if working.done():
                await working
            await asyncio.sleep(0.02)
        meter.report()
        await service.stop()
        await working


def bare_verdict(value: bytes, topic: str, partition: int, offset: int, timestamp: float) -> bytes:
    """What the rivals answer: JSON in, a document with the fields of Verdict v1 out, unchecked."""
    event = orjson.loads(value)
    verdict = {
        **_ANSWER,
        "verdict_id": f"{topic}-{partition}-{offset}",
        "event_id": event["id"],
        "conversation_id": event["conversation_id"],
        "tenant": event["tenant"],
        "source": {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "timestamp": timestamp,
        },
        "judged_at": time.time(),
    }
    return orjson.dumps(verdict)


async def run_aiokafka(bootstrap: str, topic: str, run: str, meter: Meter) -> None:
    """A bare exactly-once loop: JSON in, JSON out, one transaction a partition and poll.

    One transactional producer a partition, as it takes to fence an owner that was frozen.
    """
    settings = bench_settings(bootstrap, run)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=settings.kafka.group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    consumer.subscribe([topic])
    await consumer.start()
    producers: dict[TopicPartition, AIOKafkaProducer] = {}
    for partition in range(PARTITIONS):
        name = f"{settings.kafka.group_id}-{topic}-{partition}"
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
        await producer.start()
        producers[TopicPartition(topic, partition)] = producer

    async def commit(source: TopicPartition, records: list[Any]) -> None:
        producer = producers[source]
        async with producer.transaction():
            for record in records:
                value = bare_verdict(
                    record.value, record.topic, record.partition, record.offset, record.timestamp
                )
                await producer.send(settings.topics.verdicts, value, key=record.key)
            await producer.send_offsets_to_transaction(
                {source: records[-1].offset + 1}, settings.kafka.group_id
            )

    done = 0
    while not meter.at(done):
        batches = await consumer.getmany(timeout_ms=200, max_records=2000)
        if batches:
            meter.start()
        await asyncio.gather(*(commit(source, records) for source, records in batches.items()))
        done += sum(map(len, batches.values()))
    meter.report()
    for producer in producers.values():
        await producer.stop()
    await consumer.stop()


async def run_faust(bootstrap: str, topic: str, run: str, meter: Meter) -> None:
    """A bare Faust agent, at least once: JSON in, JSON out."""
    import faust

    settings = bench_settings(bootstrap, run)
    app = faust.App(
        settings.kafka.group_id,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        value_serializer="raw",
        datadir=tempfile.mkdtemp(),
    )
    done = asyncio.Event()
    seen = 0

    async def agent(stream: Any) -> None:
        nonlocal seen
        async for record in stream.events():
            meter.start()
            message = record.message
            value = bare_verdict(
                record.value, message.topic, message.partition, message.offset, message.timestamp
            )
            await app.send(settings.topics.verdicts, key=message.key, value=value)
            seen += 1
            if meter.at(seen):
                done.set()

    app.agent(app.topic(topic, value_type=bytes))(agent)
    await app.start()
    await done.wait()
    await app.producer.flush()
    meter.report()
    await app.stop()


CONTENDERS: dict[str, Callable[[str, str, str, Meter], Awaitable[None]]] = {
    "worker": run_worker,
    "aiokafka": run_aiokafka,
    "faust": run_faust,
}


def main(name: str, bootstrap: str, topic: str, run: str, count: str) -> None:
    """Run one contender."""
    logging.getLogger().setLevel(logging.CRITICAL)  # a rival's warnings are no part of the table
    work = CONTENDERS[name](bootstrap, topic, run, Meter(int(count)))
    asyncio.run(asyncio.wait_for(work, _GIVE_UP_S))


if __name__ == "__main__":
    main(*sys.argv[1:])
