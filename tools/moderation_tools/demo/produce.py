"""Writing the script to a log: input topics are those of the policies it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moderation_tools.demo.place import POLICIES
from moderation_tools.demo.scenario import Scripted, script
from worker.errors import ConfigurationError
from worker.log.admin import create_topics
from worker.log.factory import open_admin, open_writer
from worker.policy.directory import policy_files
from worker.policy.parse import load_policy
from worker.records import Output
from worker.settings import Settings, load_settings


async def make_topics(settings: Settings) -> dict[str, str]:
    """Create what is missing; policy name to its first input topic."""
    policies = [
        load_policy(file, settings.judge.guard)
        for file in policy_files(settings.policies.directory)
    ]
    async with open_admin(settings) as admin:
        await create_topics(admin, settings, [topic for each in policies for topic in each.topics])
    return {policy.name: policy.topics[0] for policy in policies if policy.topics}


def outputs(records: Sequence[Scripted], topics: dict[str, str]) -> list[Output]:
    """The script as records of the input topics.

    Raises:
        ConfigurationError: a policy of the demonstration is missing.
    """
    missing = sorted({record.policy for record in records} - set(topics))
    if missing:
        raise ConfigurationError(
            f"policies.directory: the script needs the policies of {POLICIES}: {', '.join(missing)}"
        )
    return [
        Output(topic=topics[record.policy], key=record.key, value=record.value)
        for record in records
    ]


async def produce_script(config: Path | None, rounds: int) -> int:
    """Write the script ``rounds`` times; the number of records written."""
    settings = load_settings(config)
    records = outputs(script(), await make_topics(settings))
    async with open_writer(settings) as writer:
        for _ in range(rounds):
            await writer.write(records)
    return rounds * len(records)
