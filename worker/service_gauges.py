"""The gauges that are read off a running service whenever somebody collects."""

from __future__ import annotations

from collections.abc import Callable

from worker.telemetry import instruments
from worker.telemetry.aggregate import Labels, Observation
from worker.telemetry.names import Attribute
from worker.web.health import Health
from worker.web.snapshot import WorkerSnapshot


def observe(snapshot: Callable[[], WorkerSnapshot], health: Callable[[], Health]) -> None:
    """Watch the service from its start: build, model, policies, readiness and what it consists of,
    stalled batch, dependencies away, policy problems."""
    away = _Away()
    instruments.batch_stalled.watch(lambda: [(snapshot().stalled_batch_s, {})])
    instruments.ready.watch(lambda: [(1 if health().ok else 0, {})])
    instruments.check.watch(
        lambda: [(int(ok), {Attribute.CHECK: name}) for name, ok in health().checks.items()]
    )
    instruments.build_info.watch(lambda: [(1, {Attribute.BUILD: snapshot().version})])
    instruments.model_info.watch(lambda: _model(snapshot()))
    instruments.policy_info.watch(lambda: _policies(snapshot()))
    instruments.policy_problems.watch(lambda: _problems(snapshot()))
    instruments.paused.watch(lambda: away.seconds(snapshot()))


def forget() -> None:
    """Watch no longer: the service is closed."""
    for gauge in (
        instruments.batch_stalled,
        instruments.ready,
        instruments.check,
        instruments.build_info,
        instruments.model_info,
        instruments.policy_info,
        instruments.policy_problems,
        instruments.paused,
    ):
        gauge.watch(None)


def _model(snapshot: WorkerSnapshot) -> list[Observation]:
    if (model := snapshot.model) is None:
        return []
    labels: Labels = {
        Attribute.MODEL: model.id,
        Attribute.REVISION: model.revision,
        Attribute.ADAPTER: model.adapter or "",
        Attribute.TEMPLATE: model.template_sha256,
        Attribute.NUMERICS: model.numerics,
    }
    return [(1, labels)]


def _policies(snapshot: WorkerSnapshot) -> list[Observation]:
    return [
        (
            1,
            {
                Attribute.POLICY: policy.name,
                Attribute.POLICY_VERSION: policy.version,
                Attribute.POLICY_SHA: policy.sha256,
            },
        )
        for policy in snapshot.policies
    ]


def _problems(snapshot: WorkerSnapshot) -> list[Observation]:
    count = len(snapshot.policy_problems) + len(snapshot.unready_topics)
    return [(count, {})]


class _Away:
    """Since when each dependency has been away, as far as collections have seen it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def seconds(self, snapshot: WorkerSnapshot) -> list[Observation]:
        paused = set(snapshot.stream.paused_dependencies if snapshot.stream else ())
        paused.update(snapshot.waits_for)
        self._since = {name: self._since.get(name, snapshot.now) for name in paused}
        return [
            (snapshot.now - since, {Attribute.DEPENDENCY: name})
            for name, since in self._since.items()
        ]
