"""A worker in the middle of its work, as the console and the probes see it."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.support.verdicts import make_verdict
from worker.clock import ManualClock
from worker.contracts.verdict import CategoryVerdict, Reasoning, SideVerdict, Verdict
from worker.log.status import PartitionStatus, StreamStatus
from worker.records import TopicPartition
from worker.web.console import ConsoleView
from worker.web.health import HealthLimits, live, ready
from worker.web.recent import Recent
from worker.web.snapshot import PolicyRow, WorkerSnapshot

LIMITS = HealthLimits(loop_lag_s=10, batch_s=60, progress_s=300)
NOW = 10_000.0
TOPICS = ("ide.conversations", "community.posts", "bank.chat")


def make_partition(topic: str, partition: int, **changes: Any) -> PartitionStatus:
    status = PartitionStatus(
        source=TopicPartition(topic, partition),
        committed=48_200 + partition,
        position=48_260 + partition,
        lag=60,
        inflight=22,
        oldest_age_s=1.4,
        held_by=None,
        isolating=False,
    )
    return msgspec.structs.replace(status, **changes)


def make_stream(**changes: Any) -> StreamStatus:
    status = StreamStatus(
        assigned=True,
        stopping=False,
        fatal=None,
        partitions=(make_partition(TOPICS[0], 0),),
        inflight_events=22,
        inflight_bytes=18_000,
        running=22,
        events_committed=48_200,
        last_progress_at=NOW - 1,
        paused_dependencies=(),
    )
    return msgspec.structs.replace(status, **changes)


def make_snapshot(**changes: Any) -> WorkerSnapshot:
    """A worker that is live and ready."""
    snapshot = WorkerSnapshot(
        now=NOW,
        uptime_s=7_384.0,
        version="0.1.0",
        group="moderation-worker",
        model=make_verdict().model,
        model_warm=True,
        loop_lag_s=0.002,
        stream=make_stream(),
        policies=(
            PolicyRow(name="devtools", version=3, sha256="9f3c21aa" * 8, topics=(TOPICS[0],)),
        ),
    )
    return msgspec.structs.replace(snapshot, **changes)


def make_view(snapshot: WorkerSnapshot, recent: Recent, show_content: bool = False) -> ConsoleView:
    return ConsoleView(
        snapshot=snapshot,
        live=live(snapshot, LIMITS),
        ready=ready(snapshot, LIMITS),
        activity=recent.activity(),
        show_content=show_content,
    )


def busy_view(*, show_content: bool = False) -> ConsoleView:
    """Traffic on three policies, one dependency away, one policy file refused."""
    clock = ManualClock(1_700_000_000.0)
    recent = Recent(clock, show_content=show_content, max_batch=32)
    for second in range(60):
        for number in range(24 + (second * 7) % 13):
            verdict = _verdict(second * 40 + number)
            recent.add(
                verdict,
                held=verdict.action == "hold",
                text="How do I stop a runaway process on my build machine?",
                traces=("The user asks about processes. Killing a process harms nobody. Safe.",),
            )
        clock.advance(1)
    recent.batches(60, 1_484)
    recent.add_dead_letter("not_json", TOPICS[1], 2, 77)
    paused = make_partition(TOPICS[2], 1, held_by="store", lag=1_204, oldest_age_s=96.0)
    stream = make_stream(
        partitions=(
            make_partition(TOPICS[0], 0),
            make_partition(TOPICS[0], 3, lag=0, inflight=0, position=51_022),
            make_partition(TOPICS[1], 2, lag=312, inflight=64),
            paused,
        ),
        inflight_events=108,
        inflight_bytes=242_000,
        paused_dependencies=("store",),
    )
    policies = tuple(
        PolicyRow(
            name=name,
            version=version,
            sha256=digest * 8,
            topics=(topic,),
            think=think,
            candidate=to,
        )
        for name, version, digest, topic, think, to in (
            ("community", 12, "04b1d9e7", TOPICS[1], "uncertain", 13),
            ("devtools", 3, "9f3c21aa", TOPICS[0], "never", None),
            ("finance", 5, "77ab02c4", TOPICS[2], "unsafe", None),
        )
    )
    snapshot = make_snapshot(
        stream=stream,
        policies=policies,
        policy_problems=("policies/education.yaml:14: thresholds.unsafe: must be 0 to 1.",),
    )
    return make_view(snapshot, recent, show_content)


def _verdict(number: int) -> Verdict:
    name = ("devtools", "community", "finance")[number % 3]
    base = make_verdict(event_id=f"evt-{number:06d}", policy=name, topic=TOPICS[number % 3])
    if number % 11 == 0:
        return msgspec.structs.replace(
            base,
            outcome="unsafe",
            action="hold",
            user=SideVerdict(label="unsafe", score=0.93),
            categories=(CategoryVerdict(name="Harassment", source="builtin"),),
            reasoning=Reasoning(mode="unsafe", trace="It insults a person."),
        )
    if number % 53 == 0:
        return msgspec.structs.replace(
            base, outcome="undecided", action="hold", user=None, undecided_reason="image_missing"
        )
    return base
