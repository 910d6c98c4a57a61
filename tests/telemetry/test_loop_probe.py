"""The loop's lag is measured, also from outside while the loop is stuck."""

from __future__ import annotations

import asyncio

from worker.clock import ManualClock
from worker.telemetry.loop_probe import LoopProbe


async def test_a_loop_that_turns_late_is_seen() -> None:
    """A wake-up that comes 2 s late is a lag of 2 s, and over with the next one in time."""
    clock = ManualClock()
    probe = LoopProbe(clock, interval_s=0.25)
    probe.start()
    assert probe.lag_s() == 0
    clock.advance(2.25)
    probe.tick()
    assert probe.lag_s() == 2.0
    clock.advance(0.25)
    probe.tick()
    assert probe.lag_s() == 0
    await probe.stop()
    assert probe.lag_s() == 0


async def test_a_stuck_loop_shows_a_growing_lag() -> None:
    """Another thread can tell that the loop stands still, before it ever turns again."""
    clock = ManualClock()
    probe = LoopProbe(clock)
    probe.start()
    clock.advance(30.25)
    assert await asyncio.to_thread(probe.lag_s) == 30.0
    await probe.stop()
