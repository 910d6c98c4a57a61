"""Freezes beyond the session time-out among kills: exactly once, but today far too slowly.

Not collected by itself, because it does not end within its deadline: after the last strike the
fleet goes on at a few records a second instead of hundreds. Run it by

    make test ARGS="tests/log/freezes.py"
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create
from tests.support.log_chaos import survive

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENT = {"max_events": 64, "poison_isolate_after": 12, "poison_give_up_after": 14}
"""Kills that come faster than a restart would all be put down to records, which are then tried one
by one: the search for poison has tests of its own (``test_poison.py``)."""


async def test_kills_and_freezes_lose_and_repeat_nothing(kafka: Cluster, tmp_path: Path) -> None:
    """12 kills and freezes past the session timeout: each of 8,000 records judged once."""
    backend = KafkaBackend(kafka, session_timeout_s=2.0, stream=PATIENT)
    await create(backend, partitions=4)
    fleet = await survive(
        backend,
        tmp_path / "workers.log",
        8000,
        workers=2,
        seed=7,
        strikes=12,
        gap_s=(1.0, 2.5),
        freeze_s=(6.0, 8.0),
        pause_s=0.15,
    )
    assert fleet.kills + fleet.freezes == 12
    assert fleet.freezes >= 3
