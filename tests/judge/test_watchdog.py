"""A device call that hangs ends the process, once it has had twice its time."""

from __future__ import annotations

import pytest

from worker.judge.watchdog import HUNG_DEVICE_EXIT, Watchdog


@pytest.mark.parametrize(
    ("stalled", "healthy", "exits"),
    [
        (0.0, True, []),
        (60.0, True, []),
        (61.0, False, []),
        (120.0, False, []),
        (121.0, False, [HUNG_DEVICE_EXIT]),
    ],
)
def test_past_the_deadline_is_unhealthy_and_past_twice_the_deadline_ends_it(
    stalled: float, healthy: bool, exits: list[int]
) -> None:
    ended: list[int] = []
    watchdog = Watchdog(lambda: stalled, 60.0, exit=ended.append)
    watchdog.check()
    assert watchdog.healthy is healthy
    assert ended == exits
