"""Promise 5: user content leaves the worker in verdict topics only, whatever it looks like."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.canary import CANARY, assert_no_canary, hostile_text, hostile_values
from tests.support.otlp import collector
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from worker.records import Output

HEADERS = ((f"x-{CANARY}", CANARY.encode()), ("traceparent", CANARY.encode()))
PAGES = ("/", "/console.json", "/healthz", "/readyz", "/metrics")


async def test_hostile_content_stays_out_of_logs_spans_metrics_and_pages(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Logs at debug, every trace kept, every page read: the canary is nowhere but in the topics."""
    place.change(telemetry={"log_level": "debug", "sample_ratio": 1.0})
    values = hostile_values()
    outputs = [
        Output(topic="chat", key=CANARY.encode(), value=value, headers=HEADERS) for value in values
    ]
    outputs += [
        said(f"a grenade {hostile_text()}", 900),
        said(f"murder {CANARY}", 901, images=[{"uri": f"s3://pics/{CANARY}.png"}]),
    ]
    with collector() as received:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint}
        with WorkerProcess(place.config, tmp_path / "log", env=export) as worker:
            await asyncio.to_thread(worker.wait_ready)
            await place.write(outputs)

            def answered() -> bool:
                events = worker.metric("moderation_events_total")
                return events + worker.metric("moderation_dead_letters_total") >= len(outputs)

            await asyncio.to_thread(worker.until, answered, "done with all of them")
            pages = [worker.get(page)[1] for page in PAGES]
            assert await asyncio.to_thread(worker.terminate) == 0
        assert len(received.spans("process {topic}")) == len(outputs)
        assert received.metrics()
        assert_no_canary(*received.raw)
    assert worker.said().count('"logger":"worker.event"') == len(outputs)
    assert all(pages)
    assert_no_canary(worker.said(), *pages)
    held, letters = await place.quarantined(), await place.dead_letters()
    assert any(CANARY in (each.original.value or "") for each in held)
    assert any(CANARY.encode() in (each.value or b"") for each in letters)
