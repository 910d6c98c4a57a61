"""The chart's scaling over curves of traffic, played with KEDA's and the HPA's own arithmetic."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from deploy.scaling import (
    CURVES,
    PARTITIONS,
    PROMETHEUS,
    Load,
    Moment,
    Scaler,
    default_fleet,
    pictures,
    play,
    scaled_object,
)
from tests.support.tools import helm

FLEET = default_fleet()


@pytest.fixture(scope="session")
def full() -> dict[str, Any]:
    """As recommended: lag, the rate of events, and outages known."""
    return scaled_object(helm(), PROMETHEUS)


@pytest.fixture(scope="session")
def alone() -> dict[str, Any]:
    """Lag alone."""
    return scaled_object(helm())


def curve(name: str, spec: dict[str, Any]) -> list[Moment]:
    return play(CURVES[name][1], FLEET, spec, PARTITIONS)


def changes(moments: list[Moment]) -> int:
    """How often the group was changed; each stops all of it."""
    return sum(a.pods != b.pods for a, b in pairwise(moments))


def percentile(moments: list[Moment], share: float) -> float:
    delays = sorted(each.delay_s for each in moments)
    return delays[int(share * (len(delays) - 1))]


def gpu_hours(moments: list[Moment]) -> float:
    return sum(each.pods for each in moments) * 5 / 3600


def test_lag_of_all_topics_adds_up_to_one_demand(alone: dict[str, Any]) -> None:
    """Of two triggers the HPA would take the larger: half of the workers that are needed."""
    scaler = Scaler(alone, PARTITIONS)

    assert scaler.value([4 * scaler.target, 4 * scaler.target], 0, 1e9) == 8 * scaler.target
    assert scaler.value([1e9, 1e9], 0, 1e9) == sum(PARTITIONS) * scaler.target


def test_a_spike_is_met_within_minutes_and_its_workers_leave_within_minutes(
    full: dict[str, Any],
) -> None:
    """The wait is about a cold start, for what comes in it; then the tail is worked off."""
    moments = curve("spike", full)

    assert max(each.delay_s for each in moments) <= 2 * FLEET.cold_start_s
    assert max(each.pods for each in moments) >= 15
    back = next(each.at for each in moments if each.at > 1200 and each.pods <= 3)
    assert back - 1200 <= 20 * 60


def test_a_day_of_traffic_is_followed_without_waiting(full: dict[str, Any]) -> None:
    moments = curve("day", full)

    assert percentile(moments, 0.99) <= FLEET.delay_s
    assert changes(moments) <= 60


def test_lag_alone_follows_a_day_at_the_price_that_the_guide_names(
    full: dict[str, Any], alone: dict[str, Any]
) -> None:
    """Workers that keep up leave no lag, so they are taken away and missed again."""
    watched, blind = curve("day", full), curve("day", alone)

    assert changes(blind) > 5 * changes(watched)
    assert gpu_hours(blind) > gpu_hours(watched)
    assert max(each.delay_s for each in blind) <= 150


def test_an_outage_adds_no_worker(full: dict[str, Any], alone: dict[str, Any]) -> None:
    """Twenty idle GPUs mend no store."""
    moments = curve("outage", full)
    began = next(each.pods for each in moments if each.at >= 600)
    during = [each.pods for each in moments if 660 <= each.at < 2400]

    assert max(during) <= began
    assert max(each.pods for each in curve("outage", alone) if 660 <= each.at < 2400) == 24
    assert gpu_hours(moments) < gpu_hours(curve("outage", alone))


def test_after_an_outage_the_backlog_is_worked_off_with_all_workers(full: dict[str, Any]) -> None:
    moments = curve("outage", full)
    after = [each for each in moments if each.at >= 2400]

    assert max(each.pods for each in after) == 24
    done = next(each.at for each in after if each.delay_s <= FLEET.delay_s)
    assert done - 2400 <= 15 * 60


def test_one_partition_that_stands_still_does_not_raise_the_fleet(full: dict[str, Any]) -> None:
    """More workers cannot judge the event at its head."""
    moments = curve("poison", full)
    began = next(each.pods for each in moments if each.at >= 600)

    assert max(each.pods for each in moments if 600 <= each.at <= 1200) <= began + 3


def test_a_backlog_is_worked_off_at_once_and_the_fleet_shrinks_again(full: dict[str, Any]) -> None:
    moments = curve("backlog", full)
    done = next(each.at for each in moments if each.at > 60 and each.delay_s <= FLEET.delay_s)
    small = next(each.at for each in moments if each.at > done and each.pods <= 3)

    assert max(each.pods for each in moments) == 24
    assert done <= 15 * 60
    assert small - done <= 20 * 60


@pytest.mark.parametrize("sets", [(), (PROMETHEUS,)])
def test_one_event_wakes_a_fleet_of_zero_which_sleeps_again(sets: tuple[str, ...]) -> None:
    spec = scaled_object(helm(), "autoscaling.minReplicas=0", *sets)
    load = Load(lambda at: 0.2 if at == 600 else 0.0, 3600)

    moments = play(load, FLEET, spec, PARTITIONS)

    assert max(each.pods for each in moments if each.at < 600) == 0
    woken = next(each.at for each in moments if each.pods)
    assert woken - 600 <= spec["pollingInterval"] + 5
    assert moments[-1].pods == 0


def test_while_the_lag_cannot_be_read_no_worker_leaves(full: dict[str, Any]) -> None:
    """And a fleet smaller than the fallback is raised to it."""
    load = Load(lambda at: 300.0 if at < 900 else 0.0, 3600, unreadable=(900, 3600))

    moments = play(load, FLEET, full, PARTITIONS)
    before = next(each.pods for each in moments if each.at >= 900)

    assert all(each.pods >= before for each in moments if each.at >= 900)
    quiet = play(Load(lambda at: 1.0, 1800, unreadable=(300, 1800)), FLEET, full, PARTITIONS)
    assert quiet[-1].pods == full["fallback"]["replicas"]


def test_fifty_workers_become_two_within_minutes(full: dict[str, Any]) -> None:
    """One at a time took four hours, of which most were idle GPUs."""
    spec = {**full, "maxReplicaCount": 50}
    scaler = Scaler(spec, (50, 50))
    pods, at = 50, 0
    while pods > 2:
        at += 15
        pods = scaler.pods(at, pods, scaler.target)
        assert at <= 20 * 60


def test_the_pictures_of_the_guide_are_those_of_these_values() -> None:
    """Mend with: python -m deploy.scaling --helm PATH-OF-HELM"""
    made = pictures(helm())
    stale = [path.name for path, text in made.items() if path.read_text() != text]
    assert stale == []
