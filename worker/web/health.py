"""Health means progress. Live: end this process if not. Ready: it does its share of the work.

Neither asks whether Kafka, S3 or a judge elsewhere can be reached: restarting a worker mends none
of them, and a hundred workers restarting at once make an outage longer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from worker.judge.identity import is_demonstration
from worker.settings import Settings
from worker.web.snapshot import WorkerSnapshot


class HealthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: how late the loop may be, how long a batch and a standstill may last."""

    loop_lag_s: float = 10.0
    batch_s: float = 60.0
    progress_s: float = 300.0


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be: a stable code, and what is the matter."""

    code: str
    detail: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a probe. ``notes`` are worth knowing and change nothing.

    ``demonstration`` names a model that cannot tell what is harmful, where one judges.
    """

    ok: bool
    checks: dict[str, bool]
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    demonstration: str | None = None

    @property
    def status(self) -> int:
        """HTTP status: 200 or 503."""
        return 200 if self.ok else 503

    def body(self) -> bytes:
        """JSON that names what is wrong and why."""
        word = "ok" if self.ok else "failing"
        problems, notes = msgspec.to_builtins((self.problems, self.notes))
        body = {"status": word, "checks": self.checks, "problems": problems, "notes": notes}
        if self.demonstration is not None:
            body["demonstration"] = f"{self.demonstration} judges: it cannot tell what is harmful"
        return json.dumps(body).encode()


def limits_of(settings: Settings) -> HealthLimits:
    """Limits that fit the deadlines of ``settings``.

    A standstill is longer than everything that may lawfully delay a commit: images fetched, two
    batches waited for, and a transaction.
    """
    batch = settings.judge.batch_deadline_s
    lawful = settings.store.fetch_deadline_s + 2 * batch + settings.kafka.transaction_timeout_s
    return HealthLimits(batch_s=batch, progress_s=2 * lawful)


def live(snapshot: WorkerSnapshot, limits: HealthLimits) -> Health:
    """Whether the loop turns, batches finish and events in flight get done."""
    stream = snapshot.stream
    problems = []
    if snapshot.loop_lag_s > limits.loop_lag_s:
        problems.append(Problem(code="loop", detail=_late("event loop", snapshot.loop_lag_s)))
    if snapshot.stalled_batch_s > limits.batch_s:
        detail = f"{_late('batch', snapshot.stalled_batch_s)}; judge.batch_deadline_s is "
        problems.append(Problem(code="batch", detail=f"{detail}{limits.batch_s:g}"))
    if stream is not None and stream.fatal is not None:
        problems.append(Problem(code="fatal", detail=stream.fatal))
    if stream is not None and any(p.inflight and p.held_by is None for p in stream.partitions):
        standstill = snapshot.now - stream.last_progress_at
        if standstill > limits.progress_s:
            detail = f"{stream.inflight_events} events in flight, none committed for"
            problems.append(Problem(code="progress", detail=f"{detail} {standstill:.0f} s"))
    return _health(("loop", "batch", "fatal", "progress"), problems, snapshot)


def ready(snapshot: WorkerSnapshot, limits: HealthLimits) -> Health:
    """Whether this worker judges events: live, warm, assigned and with a policy for every topic.

    An assignment is complete when every partition's producer has fenced its predecessor; it may
    be empty. A worker that drains is not ready.
    """
    stream = snapshot.stream
    problems = list(live(snapshot, limits).problems)
    if not snapshot.model_warm:
        problems.append(Problem(code="model", detail="the model is still loading"))
    if stream is not None and stream.stopping:
        problems.append(Problem(code="draining", detail="the worker is finishing what it has"))
    elif stream is None or not stream.assigned:
        detail = "no assignment was completed yet: joining the group, or fencing predecessors"
        problems.append(Problem(code="assignment", detail=detail))
    for topic in snapshot.unready_topics:
        detail = f"topic {topic} is paused: its policy never became valid"
        problems.append(Problem(code="policy", detail=detail))
    names = ("loop", "batch", "fatal", "progress", "model", "draining", "assignment", "policy")
    return _health(names, problems, snapshot)


def _health(names: tuple[str, ...], problems: list[Problem], snapshot: WorkerSnapshot) -> Health:
    failing, model = {problem.code for problem in problems}, snapshot.model
    return Health(
        ok=not problems,
        checks={name: name not in failing for name in names},
        problems=tuple(problems),
        notes=tuple(_notes(snapshot)),
        demonstration=model.id if model is not None and is_demonstration(model.id) else None,
    )


def _notes(snapshot: WorkerSnapshot) -> Iterator[Problem]:
    if snapshot.stream is not None:
        for dependency in snapshot.stream.paused_dependencies:
            detail = f"{dependency} is away: partitions wait and retry, no event is blamed"
            if dependency == "log" and snapshot.stream.log_trouble:
                detail = f"{detail} ({snapshot.stream.log_trouble})"
            yield Problem(code="dependency", detail=detail)
    for problem in snapshot.policy_problems:
        yield Problem(code="policy_file", detail=problem)


def _late(what: str, seconds: float) -> str:
    return f"{what} has not moved for {seconds:.1f} s"
