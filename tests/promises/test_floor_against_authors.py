"""Promise 4 against the authors of policies, on the demonstration checkpoint."""

from __future__ import annotations

import pytest

from moderation_tools.bench.floor import attacks, measure, texts
from worker.processing.session import open_session
from worker.settings import Settings


async def _holds(policies: int, broken: int) -> None:
    settings = Settings(judge={"backend": "local", "model": "tiny", "cache_bytes": 0})
    async with open_session(settings) as session:
        rows = await measure(session.evaluator, list(attacks(policies)), texts(broken))
    assert sum(row.allowed for row in rows) == 0
    assert sum(row.same for row in rows) >= 0.99 * sum(row.judged for row in rows)
    for row in rows:
        assert row.policies == policies // len(rows)
        assert row.judged or row.refused, row.kind


async def test_no_author_gets_the_floor_past_the_stock_policy() -> None:
    """A share of the run below."""
    await _holds(policies=24, broken=2)


@pytest.mark.slow
async def test_three_hundred_hostile_policies_change_nothing_about_the_floor() -> None:
    """Drowned, renamed, reversed, split, translated, disguised, suppressed around, outvoted."""
    await _holds(policies=320, broken=5)
