"""What the worker is doing at one moment, as probes and the console read it."""

from __future__ import annotations

import msgspec

from worker.contracts.verdict import ModelRef
from worker.log.status import StreamStatus
from worker.policy.registry import Snapshot as PolicySnapshot


class PolicyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One live policy."""

    name: str
    version: int
    sha256: str
    topics: tuple[str, ...] = ()
    think: str = "never"
    candidate: int | None = None


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One moment. ``now`` is of the clock's ``monotonic``, as the times in ``stream`` are.

    ``model_warm``: the first request would be judged without delay. ``stalled_batch_s``: how long
    the oldest batch has been on the device. ``loop_lag_s``: how late the event loop is.
    ``stream`` is None until the log was opened; ``waits_for`` are dependencies that have to be
    there before it is.
    """

    now: float
    uptime_s: float = 0.0
    version: str = ""
    group: str = ""
    delivery: str = "exactly_once"
    model: ModelRef | None = None
    model_warm: bool = False
    stalled_batch_s: float = 0.0
    loop_lag_s: float = 0.0
    waits_for: tuple[str, ...] = ()
    stream: StreamStatus | None = None
    policies: tuple[PolicyRow, ...] = ()
    unready_topics: tuple[str, ...] = ()
    policy_problems: tuple[str, ...] = ()


def policy_rows(policies: PolicySnapshot) -> tuple[PolicyRow, ...]:
    """The live policies of a registry's snapshot, by name."""
    return tuple(
        PolicyRow(
            name=name,
            version=policy.version,
            sha256=policy.sha256,
            topics=policy.topics,
            think=policy.think.when,
            candidate=policy.candidate.version if policy.candidate else None,
        )
        for name, policy in sorted(policies.by_name.items())
    )
