"""A record that ends the process passes on as poison after four tries; nobody else is blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka import Cluster
from tests.support.log_backends import Backend, KafkaBackend, LocalBackend, create
from tests.support.poison import pass_poison

pytestmark = pytest.mark.slow


async def check(backend: Backend, log: Path, workers: int = 1) -> int:
    await create(backend, partitions=4)
    values = [b"v%d" % number for number in range(60)]
    values[33] = b"die"
    answers, restarts = await pass_poison(backend, log, values, workers=workers)
    poison = answers.pop(b"die")
    assert poison["outcome"] == "undecided"
    assert poison["attempts"] == 5
    assert poison["isolated"]
    assert {answer["outcome"] for answer in answers.values()} == {"safe"}
    return restarts


async def test_a_deadly_record_passes_on_after_four_tries(tmp_path: Path) -> None:
    """Two tries in a batch, two alone, then undecided; the other partitions are judged as ever."""
    assert await check(LocalBackend(tmp_path), tmp_path / "log.txt") == 4


@pytest.mark.kafka
async def test_a_deadly_record_passes_on_after_four_tries_on_kafka(
    kafka: Cluster, tmp_path: Path
) -> None:
    """The count travels in the metadata of the committed offset."""
    backend = KafkaBackend(kafka, session_timeout_s=2.0)
    assert await check(backend, tmp_path / "log.txt") == 4


async def test_two_deadly_records_pass_on_one_after_the_other(tmp_path: Path) -> None:
    """Each is found on its own; every neighbour is judged."""
    backend = LocalBackend(tmp_path)
    await create(backend, partitions=2)
    values = [b"v%d" % number for number in range(40)]
    values[5], values[20] = b"die 1", b"die 2"
    answers, _ = await pass_poison(backend, tmp_path / "log.txt", values)
    undecided = {value for value, answer in answers.items() if answer["outcome"] == "undecided"}
    assert undecided == {b"die 1", b"die 2"}
