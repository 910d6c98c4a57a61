"""Outages played through Prometheus' own rule engine: who is paged, how soon, and who is not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy.test_alerts import alerts
from tests.support.rules import Fired, Series, Worker, counter, firing, played, series

pytestmark = pytest.mark.timeout(1800)
"""The first run builds Prometheus' checker from its source."""
H = 60
DAY = 24 * H


class Outage(NamedTuple):
    """What is played, by which minute which alerts fire, and no others."""

    scene: list[Worker | Series]
    by: int
    fires: set[str]
    values: str = "gpu-keda-sasl"


def worker(name: str = "a", minutes: int = 2 * H, **said: object) -> Worker:
    return Worker(name=name, minutes=minutes, **said)  # type: ignore[arg-type]


def pod(metric: str, values: str, **labels: object) -> Series:
    return {series(metric, pod="rel-moderation-worker-7f9c-x", **labels): values}


def keda(metric: str, values: str, scaler: str = "kafkaScaler") -> Series:
    return {series(metric, scaledObject="rel-moderation-worker", scaler=scaler): values}


RISING = "0+60x120"
"""Seconds since something was there, from the first minute on."""
OUTAGES = {
    "all pods are Pending": Outage(
        [pod("kube_pod_status_phase", "1x120", phase="Pending")],
        25,
        {"ModerationTooFewReady", "ModerationPodsPending"},
    ),
    "the init container that fetches the model fails": Outage(
        [
            pod("kube_pod_status_phase", "1x120", phase="Pending"),
            pod(
                "kube_pod_init_container_status_restarts_total",
                "0 0 1 1 2 2 3 3 4 4 5+0x110",
                container="fetch-model",
            ),
        ],
        15,
        {"ModerationTooFewReady", "ModerationInitFailing"},
    ),
    "a model never finishes loading": Outage(
        [worker("a", starting=True), worker("b", starting=True)],
        12,
        {"ModerationTooFewReady", "ModerationModelNotLoaded"},
    ),
    "the remote judge is away at the start": Outage(
        [worker(starting=True, paused={"judge": RISING})],
        4,
        {"ModerationDependencyAway"},
    ),
    "the remote judge stays away": Outage(
        [worker(starting=True, paused={"judge": RISING})],
        25,
        {
            *("ModerationDependencyAway", "ModerationDependencyDown", "ModerationTooFewReady"),
            *("ModerationModelNotLoaded", "ModerationWorkerNotReady"),
        },
    ),
    "one partition is stuck while others commit": Outage(
        [worker("a", stalled={1: RISING}), worker("b", partitions=(2, 3))],
        8,
        {"ModerationPartitionStuck"},
    ),
    "every verdict is hours late with a steady backlog": Outage(
        [worker(in_time=0.0, lag="500000x120", oldest="21600x120")],
        4,
        {"ModerationLatencyFastBurn"},
    ),
    "a tenth of verdicts is late for hours": Outage(
        [worker(minutes=8 * H, in_time=0.9)],
        7 * H,
        {"ModerationLatencySlowBurn"},
    ),
    "scaled to zero while records wait": Outage(
        [keda("keda_scaler_metrics_value", "40x120")],
        17,
        {"ModerationWaitingAtZero"},
        "s3-irsa",
    ),
    "the lag cannot be read": Outage(
        [worker("a"), worker("b"), keda("keda_scaler_detail_errors_total", "0+4x120")],
        20,
        {"ModerationLagUnreadable"},
    ),
    "a producer changed its format": Outage([worker(dead=60)], 12, {"ModerationDeadLetterRatio"}),
    "nothing can be read any more, since the start": Outage(
        [worker(events_per_minute=0, dead=60)], 12, {"ModerationDeadLetterRatio"}
    ),
    "a third of events is undecided": Outage(
        [worker(undecided=0.3)], 12, {"ModerationUndecidedRatio"}
    ),
    "the store is down": Outage(
        [
            worker(
                paused={"store": RISING},
                commits="100x120",
                events_per_minute=0,
                stalled={0: RISING, 1: RISING},
                lag="0+600x120",
                oldest=RISING,
            )
        ],
        25,
        {
            *("ModerationDependencyAway", "ModerationDependencyDown", "ModerationNoCommits"),
            "ModerationLagGrowing",
        },
    ),
    "the brokers freeze under idle workers": Outage(
        [worker(paused={"log": RISING}, events_per_minute=0, lag="0x120")],
        4,
        {"ModerationDependencyAway"},
    ),
    "events wait and no dependency is away": Outage(
        [worker(commits="100x120", events_per_minute=0, lag="50x120")],
        12,
        {"ModerationNoCommits"},
    ),
    "a worker dies again and again": Outage(
        [
            worker("a"),
            worker("b"),
            pod(
                "kube_pod_container_status_restarts_total",
                "0+1x120",
                container="moderation-worker",
            ),
        ],
        8,
        {"ModerationRestartLoop"},
    ),
    "a batch hangs on the device": Outage([worker(batch=RISING)], 4, {"ModerationBatchStalled"}),
    "workers are too slow for the traffic": Outage(
        [worker(lag="1000+400x120")], 20, {"ModerationLagGrowing"}
    ),
    "half of the retention is used up": Outage(
        [worker(oldest="151200x120")], 7, {"ModerationUnjudgedNearRetention"}
    ),
    "events are about to be deleted unjudged": Outage(
        [worker(oldest="250000x120")],
        7,
        {"ModerationUnjudgedNearRetention", "ModerationUnjudgedAboutToBeLost"},
    ),
    "half of everything is held": Outage(
        [worker(quarantined=0.5)], 35, {"ModerationQuarantineRatio"}
    ),
    "a policy file is refused": Outage(
        [worker(policy_problems="1x120")], 2, {"ModerationPolicyRefused"}
    ),
    "one worker did not take a policy over": Outage(
        [worker("a"), worker("b", partitions=(2, 3), policy="p2")],
        35,
        {"ModerationMixedPolicies"},
    ),
    "a rollout of a model stands still": Outage(
        [worker("a", 3 * H), worker("b", 3 * H, partitions=(2, 3), revision="b")],
        2 * H + 5,
        {"ModerationMixedModels"},
    ),
    "one worker of three never gets ready": Outage(
        [worker("a"), worker("b", partitions=(2, 3)), worker("c", partitions=(), ready="0x120")],
        25,
        {"ModerationWorkerNotReady"},
    ),
    "the workers cannot be scraped": Outage([{}], 12, {"ModerationTooFewReady"}),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_pages_for_what_it_is_and_for_nothing_else(name: str, tmp_path: Path) -> None:
    """Each was a night in which nobody was called, or would be called for the wrong thing."""
    outage = OUTAGES[name]

    fires = firing(played(outage.scene), outage.by, tmp_path, values=outage.values)

    assert fires == outage.fires


def rhythm(night: int, day: int) -> str:
    """A counter over a day: traffic of the night, of the day, and of the evening."""
    return f"0+{night}x420 {night * 420}+{day}x720 {night * 420 + day * 720}+{night}x300"


def test_on_a_quiet_day_nothing_fires(tmp_path: Path) -> None:
    """With a night without events, a rolling restart, a blink of the store and a bad record."""
    quiet: list[Worker | Series] = [
        worker("a", DAY, ready="1x600 0x4 1x840", lag="0x420 400x720 0x300"),
        worker(
            "b", DAY, partitions=(2, 3), ready="1x605 0x4 1x835", paused={"store": "_x700 0 60"}
        ),
        worker("c", DAY, partitions=(4,), events_per_minute=0, dead=0),
        pod("kube_pod_status_phase", "0x600 1x5 0x835", phase="Pending"),
        pod(
            "kube_pod_container_status_restarts_total", "0x700 1x740", container="moderation-worker"
        ),
        keda("keda_scaler_metrics_value", "0x420 800x720 0x300"),
        {
            series("moderation_events_total", instance="d:6066", moderation_outcome="safe"): rhythm(
                0, 900
            ),
            series(
                "moderation_dead_letters_total",
                instance="d:6066",
                moderation_dead_letter_code="not_json",
            ): "0x700 1x740",
        },
    ]

    assert firing(played(quiet), DAY, tmp_path, values="gpu-keda-sasl", ever=True) == set()


def test_every_alert_has_an_outage_that_it_is_for() -> None:
    """An alert that no scenario fires might never fire."""
    fired = set().union(*(outage.fires for outage in OUTAGES.values()))

    assert {rule["alert"] for rule in alerts("gpu-keda-sasl")} - fired == set()


def test_an_alert_ends_with_its_outage(tmp_path: Path) -> None:
    """Whoever mended it sees that it is over."""
    scene = played([worker(stalled={1: "0+60x20 0x100"}), {}])

    assert firing(scene, 15, tmp_path, values="gpu-keda-sasl") == {"ModerationPartitionStuck"}
    assert firing(scene, 25, tmp_path, values="gpu-keda-sasl") == set()
    ever = firing(scene, 25, tmp_path, values="gpu-keda-sasl", ever=True)
    assert ever == {"ModerationPartitionStuck"}


def test_the_engine_is_the_real_one_and_says_what_it_cannot_play(tmp_path: Path) -> None:
    """A scene with a slip of the pen must not pass for a quiet one."""
    with pytest.raises(Fired, match="error"):
        firing({"moderation_ready{": "1x5"}, 5, tmp_path, values="gpu-keda-sasl")
    assert counter(2.5, 3) == "0+2.5x3"
