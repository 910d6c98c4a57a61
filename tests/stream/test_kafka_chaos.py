"""Promise 1 on a real Kafka: whatever is killed, frozen or cut off, one verdict per record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos import assert_none_lost
from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create
from tests.support.log_chaos import survive

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def test_kills_and_freezes_lose_and_repeat_nothing(kafka: Cluster, tmp_path: Path) -> None:
    """12 kills and freezes beyond the session timeout: 8,000 records, 8,000 verdicts, in order."""
    backend = KafkaBackend(kafka, session_timeout_s=2.0, stream={"max_events": 64})
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
        pause_s=0.5,
    )
    assert fleet.kills + fleet.freezes == 12
    assert fleet.freezes >= 3


async def test_kills_under_at_least_once_lose_nothing(kafka: Cluster, tmp_path: Path) -> None:
    """Without transactions a kill may repeat verdicts; every record still has one."""
    backend = KafkaBackend(
        kafka, session_timeout_s=2.0, delivery="at_least_once", stream={"max_events": 64}
    )
    await create(backend, partitions=4)
    fleet = await survive(
        backend,
        tmp_path / "workers.log",
        1500,
        workers=2,
        seed=3,
        strikes=4,
        gap_s=(0.7, 1.5),
        freeze_s=None,
        pause_s=0.4,
        check=assert_none_lost,
    )
    assert fleet.kills == 4
