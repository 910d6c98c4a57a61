"""Promise 1 on a real Kafka: whatever is killed, frozen or cut off, one verdict per record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create
from tests.support.log_chaos import survive

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def test_kills_and_freezes_lose_and_repeat_nothing(kafka: Cluster, tmp_path: Path) -> None:
    """12 kills and freezes beyond the session timeout: 6,000 records, 6,000 verdicts, in order."""
    backend = KafkaBackend(kafka, session_timeout_s=3.0, stream={"max_events": 64})
    await create(backend, partitions=4)
    fleet = await survive(
        backend,
        tmp_path / "workers.log",
        6000,
        workers=2,
        seed=7,
        strikes=12,
        gap_s=(1.0, 3.0),
        freeze_s=(4.0, 7.0),
        pause_s=0.4,
    )
    assert fleet.kills + fleet.freezes == 12
    assert fleet.freezes >= 3
