"""What suites of the runner share: one over the local log, its inputs and its verdicts."""

from __future__ import annotations

from tests.log.conformance import eventually
from tests.support.log_backends import LocalBackend, read
from worker.log.base import Delivery, Processor
from worker.log.factory import open_log
from worker.log.runner import StreamRunner
from worker.records import Output


def runner_of(backend: LocalBackend, processor: Processor) -> StreamRunner:
    log = open_log(backend.settings)
    return StreamRunner(log, processor, [backend.topic], backend.settings.stream)


def verdict(backend: LocalBackend, delivery: Delivery) -> list[Output]:
    return [Output(topic=backend.settings.topics.verdicts, key=b"k", value=delivery.record.value)]


def records(backend: LocalBackend, count: int, size: int = 0) -> list[Output]:
    pad = b"." * size
    return [
        Output(topic=backend.topic, key=b"k", value=b"%05d" % number + pad)
        for number in range(count)
    ]


async def values(backend: LocalBackend) -> list[bytes]:
    found = await read(backend, backend.settings.topics.verdicts)
    return [(record.value or b"")[:5] for record in found]


async def committed(runner: StreamRunner, count: int) -> None:
    async def done() -> bool:
        return runner.status().events_committed >= count

    await eventually(done)
