"""A verdict's id says which judgement of which record it is, and nothing else changes it."""

from __future__ import annotations

import re

import pytest

from worker.contracts.verdict import Kind, verdict_id


def test_the_id_of_a_verdict_follows_from_its_record_and_kind() -> None:
    """A repeated verdict has the id of the first: that is what readers deduplicate by."""
    assert verdict_id("chat", 3, 41, "e-1", "automatic") == verdict_id(
        "chat", 3, 41, "e-1", "automatic"
    )
    assert re.fullmatch(r"[0-9a-f]{32}", verdict_id("chat", 3, 41, "e-1", "automatic"))


@pytest.mark.parametrize(
    ("topic", "partition", "offset", "event_id", "kind"),
    [
        ("chat-3", 3, 41, "e-1", "automatic"),
        ("chat", 34, 1, "e-1", "automatic"),
        ("chat", 3, 42, "e-1", "automatic"),
        ("chat", 3, 41, "e-2", "automatic"),
        ("chat", 3, 41, "e-1", "review"),
        ("chat", 3, 41, "e-1", "replay"),
    ],
)
def test_another_record_or_kind_has_another_id(
    topic: str, partition: int, offset: int, event_id: str, kind: Kind
) -> None:
    """Fields do not run into each other: partition 34, offset 1 is not partition 3, offset 41."""
    other = verdict_id(topic, partition, offset, event_id, kind)

    assert other != verdict_id("chat", 3, 41, "e-1", "automatic")
