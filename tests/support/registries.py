"""A registry over a directory of policies, with examples decided by one word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.policies import write_policy
from worker.errors import DependencyUnavailable
from worker.policy.examples import Check, ExampleOutcome, ExampleResult, check_examples
from worker.policy.model import Example, Policy
from worker.policy.registry import PolicyRegistry


class WordCheck:
    """Runs examples on a judge that calls ``bad`` unsafe; counts policies, can be away."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.away = False
        self.error: Exception = DependencyUnavailable("judge")
        self.turned_away = asyncio.Event()

    async def __call__(self, policy: Policy) -> Sequence[ExampleResult]:
        if self.away:
            self.turned_away.set()
            raise self.error
        self.checked.append(policy.name)
        return await check_examples(policy, self._judge, checkpoint=None)

    async def _judge(self, policy: Policy, example: Example) -> ExampleOutcome:
        return ExampleOutcome(outcome="unsafe" if "bad" in example.text else "safe")


HOLDS = [{"text": "bad", "expect": "unsafe"}]
FAILS = [{"text": "good", "expect": "unsafe"}]


async def live(directory: Path, check: Check | None = None) -> PolicyRegistry:
    registry = PolicyRegistry(directory, check=check)
    registry.load()
    await registry.activate()
    return registry


def put(directory: Path, file: str = "a.yaml", **fields: Any) -> Path:
    fields = {"name": "a", "topics": ["t"], **fields}
    return write_policy(directory, file, **fields)


def version_of(registry: PolicyRegistry, topic: str) -> int | None:
    policy = registry.select(topic)
    return None if policy is None else policy.version
