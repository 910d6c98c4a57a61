"""The gauges that are read off a running service whenever somebody collects."""

from __future__ import annotations

from collections.abc import Callable

from worker.telemetry import instruments
from worker.telemetry.aggregate import Observation
from worker.telemetry.names import Attribute
from worker.web.health import Health
from worker.web.snapshot import WorkerSnapshot


def observe(snapshot: Callable[[], WorkerSnapshot], health: Callable[[], Health]) -> None:
    """Watch the service: stalled batch, dependencies away, policy problems, readiness."""
    away = _Away()
    instruments.batch_stalled.watch(lambda: [(snapshot().stalled_batch_s, {})])
    instruments.ready.watch(lambda: [(1 if health().ok else 0, {})])
    instruments.policy_problems.watch(lambda: _problems(snapshot()))
    instruments.paused.watch(lambda: away.seconds(snapshot()))


def forget() -> None:
    """Watch no longer: the service is closed."""
    for gauge in (
        instruments.batch_stalled,
        instruments.ready,
        instruments.policy_problems,
        instruments.paused,
    ):
        gauge.watch(None)


def _problems(snapshot: WorkerSnapshot) -> list[Observation]:
    count = len(snapshot.policy_problems) + len(snapshot.unready_topics)
    return [(count, {})]


class _Away:
    """Since when each dependency has been away, as far as collections have seen it."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def seconds(self, snapshot: WorkerSnapshot) -> list[Observation]:
        paused = snapshot.stream.paused_dependencies if snapshot.stream else ()
        self._since = {name: self._since.get(name, snapshot.now) for name in paused}
        return [
            (snapshot.now - since, {Attribute.DEPENDENCY: name})
            for name, since in self._since.items()
        ]
