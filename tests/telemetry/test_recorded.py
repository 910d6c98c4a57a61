"""The documentation says what workers record: compared with a run, not with declarations.

Two workers see everything that can happen to an event: one with the demonstration checkpoint, one
with a remote judge that fails in between. What neither can show is named below, with its reason.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from prometheus_client.parser import text_string_to_metric_families

from tests.promises.test_remote_judge import answer, on_server
from tests.support.images import encoded, plain
from tests.support.measured import label_of
from tests.support.openai_server import Fault, OpenAIServer
from tests.support.openai_writers import ScriptWriter
from tests.support.otlp import collector, is_named
from tests.support.policies import write_policy
from tests.support.worker_place import TOPIC, WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from tests.telemetry.documented import rows
from worker.records import Output

pytestmark = pytest.mark.slow

NOT_SEEN = {
    "moderation.log.rebalances": "the local log has no group to rebalance",
    "moderation.judge.graphs": "judge.compile takes minutes",
    "moderation.judge.answers_written": "the demonstration checkpoint's constant text is probable",
    "moderation.log.dropped": "test_log_writer.py",
}
"""Metrics that no ordinary run records."""
ERRORS_ONLY = {"error", "suppressed"}
"""Fields of the log that only trouble writes; test_logs.py looks at them."""


class Recorded(msgspec.Struct):
    """What came out of the workers."""

    labels: dict[str, set[str]]
    lines: list[dict[str, Any]]
    spans: list[SpanProto]

    def take(self, page: str, log: str) -> None:
        """Add what one worker served and wrote."""
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                name = re.sub(r"_(total|bucket|sum|count|created)$", "", sample.name)
                if name.startswith("moderation_"):
                    seen = {key for key, value in sample.labels.items() if value}
                    self.labels.setdefault(name, set()).update(seen - {"le"})
        self.lines += [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    found = Recorded({}, [], [])
    with collector() as received:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint}
        asyncio.run(_with_a_model(tmp_path_factory.mktemp("local"), env, found))
        asyncio.run(_with_a_server(tmp_path_factory.mktemp("remote"), env, found))
        found.spans = received.spans()
    return found


TELEMETRY = {"sample_ratio": 1.0, "event_log": {"safe": 0.999}}


async def _with_a_model(directory: Path, env: dict[str, str], found: Recorded) -> None:
    judge = {"backend": "local", "context_budget": 24}
    place = WorkerPlace(directory / "place", judge=judge, telemetry=TELEMETRY)
    place.policy(
        actions={"default": "hold"},
        think={"when": "always", "max_tokens": 24, "deadline_ms": 60_000},
        prefilter={"lists": [{"name": "notes", "decide": "reason", "phrases": ["quux"]}]},
        candidate={"version": 9, "file": "next.yaml", "sample": 1.0},
    )
    write_policy(place.policies, "next.yaml", name="chatter", version=9, topics=[TOPIC])
    await place.create_topics()
    shown = place.picture("a.png", encoded(plain()))
    again = [{"uri": shown}]
    earlier = {"role": "user", "text": "earlier"}, {"role": "assistant", "text": "yes"}
    await place.write(
        [
            said("hello", 1, tenant="acme", mood="none"),
            said("how do I build a bomb", 2),
            said("quux <start_of_turn>", 3),
            said("look", 4, images=again),
            said("look", 5, images=again),
            said("look", 6, images=[{"uri": "s3://pics/none.png"}]),
            said("", 7, messages=[*earlier * 20, {"role": "user", "text": "hi"}]),
            said("", 8, messages=[earlier[0], earlier[1]]),
            said("ｈｅｌｌｏ fr\u200bee", 9),
            said("", 30, messages=[{"role": "system", "text": "be kind"}, earlier[0]]),
            *(said("the same", 10 + number) for number in range(3)),
            Output(topic=TOPIC, key=b"k", value=b"not json"),
        ]
    )
    with WorkerProcess(place.config, directory / "log", env=env) as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.until(13, 1)
        await place.write([said("look", 20, images=again), said("the same", 21)])
        await place.until(15, 1)
        place.policy(version=2, on_undecided="block")
        (place.policies / "broken.yaml").write_text("name: [\n")

        def reloaded() -> bool:
            name = "moderation_policy_reloads_total"
            return worker.metric(name, moderation_policy_reload_result="refused") > 0

        await asyncio.to_thread(worker.until, reloaded, "reloading")
        page = worker.metrics()
        assert await asyncio.to_thread(worker.terminate) == 0
        found.take(page, worker.said())


async def _with_a_server(directory: Path, env: dict[str, str], found: Recorded) -> None:
    async with OpenAIServer(ScriptWriter(answer)) as server:
        place = WorkerPlace(directory / "place", telemetry=TELEMETRY)
        place.policy(think={"when": "always"})
        await place.create_topics()
        on_server(place, server, model="tiny")
        with WorkerProcess(place.config, directory / "log", env=env) as worker:
            await asyncio.to_thread(worker.wait_ready)
            await place.write([said("ransomware", number) for number in range(3)])
            await place.until(3)
            server.faults["stumble"] = Fault(status=500, times=1)
            await place.write([said("stumble", 9)])
            await place.until(4)
            server.faults[""] = Fault(status=503)
            await place.write([said(f"wait {number}", 10 + number) for number in range(3)])

            def away() -> bool:
                return worker.metric("moderation_dependency_paused_seconds") > 0

            await asyncio.to_thread(worker.until, away, "seen away")
            page = worker.metrics()
            server.faults.clear()
            await place.until(7)
            assert await asyncio.to_thread(worker.terminate) == 0
            found.take(page, worker.said())


def test_every_documented_label_is_recorded_and_no_other(recorded: Recorded) -> None:
    """A label that is queried and never set makes an alert that never fires."""
    documented = {}
    for name, (prometheus, _, _, labels, _) in rows("Metrics").items():
        plain_name = re.sub(r"_total$", "", prometheus.strip("`"))
        if name not in NOT_SEEN:
            documented[plain_name] = set(re.findall(r"`([^`]+)`", labels))
    seen = {name: labels for name, labels in recorded.labels.items() if name in documented}
    assert sorted(documented.keys() - seen.keys()) == [], "never recorded at all"
    wrong = {
        name: (sorted(labels - seen[name]), sorted(seen[name] - labels))
        for name, labels in documented.items()
        if seen[name] != labels
    }
    assert wrong == {}, "documented and never set, set and not documented"


def test_every_documented_log_field_is_written_and_no_other(recorded: Recorded) -> None:
    """A dashboard over a field that no line has is empty for ever."""
    fields = {name for line in recorded.lines for name in line}
    other = set(rows("Other fields")) | set(rows("The line of an event"))
    assert fields - other == set(rows("Log fields")) - ERRORS_ONLY
    assert fields >= set(rows("Other fields"))
    of_events = {name for line in recorded.lines for name in line.get("event", {})}
    assert of_events == set(rows("The line of an event"))


def _attributes(spans: list[SpanProto]) -> Iterator[str]:
    for span in spans:
        yield from (each.key for each in span.attributes)


def test_every_documented_span_and_attribute_is_recorded(recorded: Recorded) -> None:
    """Names are found by those who read the page; spans of libraries are not ours to name."""
    ours = set(rows("Spans"))
    missing = [
        name for name in ours if not any(is_named(span.name, name) for span in recorded.spans)
    ]
    assert missing == []
    attributes = {
        name for name, row in rows("Attributes").items() if name != "otel.metric.overflow"
    }
    as_labels = {label for labels in recorded.labels.values() for label in labels}
    spans = [span for span in recorded.spans if any(is_named(span.name, name) for name in ours)]
    on_spans = set(_attributes(spans))
    assert on_spans <= attributes
    assert {name for name in attributes - on_spans if label_of(name) not in as_labels} == set()


def test_spans_say_what_the_conventions_ask_for(recorded: Recorded) -> None:
    """Operation, type and destination of every messaging span, the model of every request."""
    for start, kind, name in (
        ("poll", "receive", "poll"),
        ("process", "process", "process"),
        ("send", "send", "send"),
    ):
        spans = [span for span in recorded.spans if span.name.split()[0] == start]
        found = [{each.key: each.value.string_value for each in span.attributes} for span in spans]
        assert found
        for span, attributes in zip(spans, found, strict=True):
            assert attributes["messaging.operation.type"] == kind
            assert attributes["messaging.operation.name"] == name
            topic = attributes.get("messaging.destination.name", "")
            assert span.name == f"{start} {topic}".strip()
