"""Verdicts for tests, ordinary unless told."""

from __future__ import annotations

from worker.contracts.verdict import ModelRef, PolicyRef, SideVerdict, SourceRef, Timings, Verdict


def make_verdict(
    *,
    event_id: str = "evt-1",
    conversation_id: str = "conv-1",
    policy: str = "devtools",
    topic: str = "ide.conversations",
) -> Verdict:
    """A safe verdict; change it with ``msgspec.structs.replace``."""
    return Verdict(
        verdict_id="0123456789abcdef0123456789abcdef",
        event_id=event_id,
        conversation_id=conversation_id,
        tenant=None,
        source=SourceRef(topic=topic, partition=3, offset=4711, timestamp=1_700_000_000_000),
        outcome="safe",
        action="allow",
        user=SideVerdict(label="safe", score=0.012),
        response=None,
        policy=PolicyRef(name=policy, version=3, sha256="9f3c21aa" * 8),
        model=ModelRef(
            id="nvidia/Nemotron-3.5-Content-Safety",
            revision="35645ed3543b7e7ffaed2e788699e57a5051497c",
            adapter=None,
            template_sha256="0" * 64,
            numerics="bfloat16",
        ),
        timings_ms=Timings(queue=3.1, judge=41.0, total=48.2),
        judged_at="2026-01-01T00:00:00Z",
    )
