"""``policy`` with a judge attached, so that ``policy check --examples`` can run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from worker.cli.policy import policy_group
from worker.policy_examples import ExampleRunner
from worker.session import open_session
from worker.settings import load_settings


@asynccontextmanager
async def _open_judge(config: Path | None) -> AsyncIterator[ExampleRunner]:
    async with open_session(load_settings(config)) as session:
        yield session.examples


policy = policy_group(_open_judge)
