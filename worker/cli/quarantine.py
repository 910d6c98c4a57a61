"""``quarantine list | show``: content that is held for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from worker.cli.browse import (
    Coordinates,
    content_option,
    last_records,
    list_options,
    one_record,
    printable,
)
from worker.cli.options import config_option, json_option
from worker.contracts.encode import QuarantineRecord
from worker.records import Record
from worker.settings import load_settings


@click.group("quarantine")
def quarantine() -> None:
    """Look at content that is held for a person, or kept as evidence of what was blocked.

    \b
    What waits?                  moderation-worker quarantine list --limit 20
    Why is this one held?        moderation-worker quarantine show 0:17
    What was said in it?         moderation-worker quarantine show 0:17 --content
    """


@quarantine.command("list")
@list_options
@config_option
@json_option
def list_(partition: int | None, limit: int, config: Path | None, as_json: bool) -> None:
    """List what is held: where, since when, for review or as evidence, under which policy, why.

    No content.
    """
    settings = load_settings(config)
    for record in last_records(settings, settings.topics.quarantine, partition, limit):
        held = described(record, content=False)
        click.echo(json.dumps(held) if as_json else _line(held))


@quarantine.command()
@click.argument("where", type=Coordinates())
@content_option
@config_option
@json_option
def show(where: tuple[int, int], content: bool, config: Path | None, as_json: bool) -> None:
    """Show one held record, at PARTITION:OFFSET as the list prints it."""
    settings = load_settings(config)
    record = one_record(settings, settings.topics.quarantine, where)
    held = described(record, content=content)
    if as_json:
        click.echo(json.dumps(held))
        return
    click.echo(printable(json.dumps(held, indent=2, ensure_ascii=False).encode()))


def described(record: Record, *, content: bool) -> dict[str, Any]:
    """A held record as JSON; event, original and reasoning only with ``content``."""
    position = {"partition": record.partition, "offset": record.offset}
    try:
        decoded = msgspec.json.decode(record.value or b"", type=QuarantineRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {"position": position, "problem": "not a quarantine record of this worker"}
    held: dict[str, Any] = msgspec.to_builtins(decoded)
    held["position"] = position
    if not content:
        del held["event"]
        del held["original"]["value"]
        held["reasoning_traces"] = len(held["reasoning_traces"])
        if held["verdict"].get("reasoning"):
            held["verdict"]["reasoning"].pop("trace", None)
    return held


def _line(held: dict[str, Any]) -> str:
    where = f"{held['position']['partition']}:{held['position']['offset']}"
    if "problem" in held:
        return f"{where:<10}{held['problem']}"
    verdict = held["verdict"]
    policy = f"{verdict['policy']['name']} v{verdict['policy']['version']}"
    why = verdict.get("undecided_reason") or ", ".join(
        category["name"] for category in verdict["categories"]
    )
    review = "review" if held["needs_review"] else "evidence"
    return (
        f"{where:<10}{held['held_at']:<26}{review:<10}{verdict['outcome']:<11}"
        f"{verdict['action']:<7}{policy:<28}{why}"
    )
