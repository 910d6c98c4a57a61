"""Health means progress: the truth table of both probes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.support.views import (
    LIMITS,
    NOW,
    TOPICS,
    make_partition,
    make_snapshot,
    make_stream,
)
from worker.settings import Settings
from worker.web.health import Health, limits_of, live, ready
from worker.web.snapshot import WorkerSnapshot

HELD = make_partition(TOPICS[0], 0, held_by="store")
IDLE = make_partition(TOPICS[0], 1, inflight=0)
STUCK = make_partition(TOPICS[0], 2)


def snapshot(stream: dict[str, Any] | None = None, **changes: Any) -> WorkerSnapshot:
    return make_snapshot(stream=make_stream(**(stream or {})), **changes)


def failing(health: Health) -> set[str]:
    return {name for name, passed in health.checks.items() if not passed}


def test_a_working_worker_is_live_and_ready() -> None:
    assert live(snapshot(), LIMITS).ok
    assert ready(snapshot(), LIMITS).ok


def test_an_empty_assignment_is_ready() -> None:
    """A worker beyond the number of partitions stands by; restarting it would help nobody."""
    assert ready(snapshot({"partitions": (), "inflight_events": 0}), LIMITS).ok


NOT_LIVE: list[tuple[str, WorkerSnapshot]] = [
    ("loop", snapshot(loop_lag_s=10.1)),
    ("batch", snapshot(stalled_batch_s=60.1)),
    ("fatal", snapshot({"fatal": "fenced"})),
    ("progress", snapshot({"last_progress_at": NOW - 301})),
    ("progress", snapshot({"partitions": (HELD, STUCK), "last_progress_at": NOW - 301})),
]
NOT_READY: list[tuple[str, WorkerSnapshot]] = [
    ("model", snapshot(model_warm=False)),
    ("assignment", snapshot({"assigned": False})),
    ("assignment", msgspec.structs.replace(snapshot(), stream=None)),
    ("draining", snapshot({"stopping": True})),
    ("draining", snapshot({"stopping": True, "assigned": False})),
    ("policy", snapshot(unready_topics=("bank.chat",))),
]


@pytest.mark.parametrize(("code", "state"), NOT_LIVE)
def test_what_a_restart_mends_makes_it_not_live(code: str, state: WorkerSnapshot) -> None:
    """A stuck loop, a hung batch, a fatal error, a standstill: and then it is not ready either."""
    assert failing(live(state, LIMITS)) == {code}
    assert failing(ready(state, LIMITS)) == {code}


@pytest.mark.parametrize(("code", "state"), NOT_READY)
def test_what_time_mends_makes_it_not_ready_but_live(code: str, state: WorkerSnapshot) -> None:
    """Loading, joining, draining, a policy that never was valid: no restart helps."""
    assert live(state, LIMITS).ok
    assert failing(ready(state, LIMITS)) == {code}


@pytest.mark.parametrize(
    "state",
    [
        snapshot({"partitions": (HELD,), "last_progress_at": NOW - 9_000}),
        snapshot({"partitions": (IDLE,), "last_progress_at": NOW - 9_000}),
        snapshot(policy_problems=("policies/x.yaml:3: bad",)),
        snapshot(loop_lag_s=9.9, stalled_batch_s=59.9),
        snapshot({"last_progress_at": NOW - 299}),
    ],
)
def test_an_outage_elsewhere_an_empty_topic_and_slowness_are_no_illness(
    state: WorkerSnapshot,
) -> None:
    """Waiting for S3, having nothing to do, a bad edit beside a good version: live and ready."""
    assert live(state, LIMITS).ok
    assert ready(state, LIMITS).ok


def test_the_body_names_what_is_wrong_and_why() -> None:
    """A person who looks at the probe's answer learns what to do; the status is 503."""
    state = snapshot({"paused_dependencies": ("store",)}, unready_topics=("bank.chat",))
    health = ready(state, LIMITS)
    body = json.loads(health.body())
    assert health.status == 503
    assert body["status"] == "failing"
    assert body["checks"]["policy"] is False
    assert body["problems"][0]["code"] == "policy"
    assert "bank.chat" in body["problems"][0]["detail"]
    assert [each["code"] for each in body["notes"]] == ["dependency"]
    assert live(state, LIMITS).status == 200


def test_limits_follow_the_settings() -> None:
    """A longer batch deadline is not answered with restarts in the middle of a batch."""
    slow = Settings.model_validate({"judge": {"batch_deadline_s": 600}})
    limits = limits_of(slow)
    assert limits.batch_s == 600
    assert limits.progress_s > 2 * 600
    assert live(snapshot(stalled_batch_s=599), limits).ok


def test_a_standstill_is_noticed_within_minutes() -> None:
    """With default settings: twice what may lawfully delay a commit, and not hours."""
    assert limits_of(Settings()).progress_s == 2 * (20 + 2 * 60 + 30)
