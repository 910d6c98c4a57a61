"""``topics create | check``: the one place that makes topics; workers never do."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click
import msgspec

from worker.cli.options import config_option, json_option
from worker.log.admin import Finding, check_topics, create_topics
from worker.log.factory import open_admin
from worker.policy.registry import PolicyRegistry
from worker.settings import Settings, load_settings


@click.group("topics")
def topics() -> None:
    """Create and check the topics of the policies (inputs) and of topics.* (outputs).

    \b
    Is all there that the worker needs?   moderation-worker topics check --config worker.yaml
    Make what is missing                  moderation-worker topics create --config worker.yaml

    Topics are made with topics.partitions (topics.input_partitions for single inputs),
    topics.replication and room for kafka.max_message_bytes. Workers never make any.
    """


@topics.command()
@config_option
@json_option
def create(config: Path | None, as_json: bool) -> None:
    """Create what is missing; what exists stays as it is."""
    settings = load_settings(config)
    made = asyncio.run(_create(settings, _inputs(settings)))
    if as_json:
        click.echo(json.dumps({"created": [t for t, new in made.items() if new],
                               "existing": [t for t, new in made.items() if not new]}))  # fmt: skip
        return
    for topic, new in made.items():
        click.echo(f"{'created ' if new else 'existing'}  {topic}")


@topics.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Check that every topic exists and takes the largest record; exit code 1 where not."""
    settings = load_settings(config)
    findings = asyncio.run(_check(settings, _inputs(settings)))
    for finding in findings:
        click.echo(msgspec.json.encode(finding) if as_json else _line(finding))
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _line(finding: Finding) -> str:
    if finding.ok:
        return f"ok       {finding.topic}"
    return f"problem  {finding.topic} {finding.problem}\n         fix: {finding.fix}"


def _inputs(settings: Settings) -> tuple[str, ...]:
    registry = PolicyRegistry(settings.policies.directory)
    registry.load()
    return registry.topics()


async def _create(settings: Settings, inputs: tuple[str, ...]) -> dict[str, bool]:
    async with open_admin(settings) as admin:
        return await create_topics(admin, settings, inputs)


async def _check(settings: Settings, inputs: tuple[str, ...]) -> list[Finding]:
    async with open_admin(settings) as admin:
        return await check_topics(admin, settings, inputs)
