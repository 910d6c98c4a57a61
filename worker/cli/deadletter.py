"""``deadletter list | show``: records that could not be read as events, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from worker.cli.browse import (
    Coordinates,
    base64_text,
    content_option,
    last_records,
    list_options,
    one_record,
    printable,
)
from worker.cli.options import config_option, json_option
from worker.contracts.dead_letter import parse_dead_letter
from worker.errors import UnreadableRecord
from worker.records import Header, Record
from worker.settings import load_settings


@click.group("deadletter")
def deadletter() -> None:
    """Look at records that could not be read as events.

    \b
    What came that is no event?   moderation-worker deadletter list --limit 20
    What is wrong with this one?  moderation-worker deadletter show 0:17
    What does it say?             moderation-worker deadletter show 0:17 --content
    """


@deadletter.command("list")
@list_options
@config_option
@json_option
def list_(partition: int | None, limit: int, config: Path | None, as_json: bool) -> None:
    """List dead letters: where they are, since when, why, where they came from. No payload."""
    settings = load_settings(config)
    for record in last_records(settings, settings.topics.dead_letter, partition, limit):
        letter = described(record, content=False)
        click.echo(json.dumps(letter) if as_json else _line(letter))


@deadletter.command()
@click.argument("where", type=Coordinates())
@content_option
@config_option
@json_option
def show(where: tuple[int, int], content: bool, config: Path | None, as_json: bool) -> None:
    """Show one dead letter, at PARTITION:OFFSET as the list prints it."""
    settings = load_settings(config)
    record = one_record(settings, settings.topics.dead_letter, where)
    letter = described(record, content=content)
    if as_json:
        click.echo(json.dumps(letter))
        return
    shown = letter.pop("content", None)
    for name, value in letter.items():
        if value not in ("", [], False):
            click.echo(f"{name:<14}{printable(_plain(value).encode())}")
    if shown is not None:
        click.echo(f"key           {printable(record.key)}")
        for name, value in _own_headers(record):
            click.echo(f"header        {printable(name.encode())}: {printable(value)}")
        click.echo(f"value         {printable(record.value)}")


def described(record: Record, *, content: bool) -> dict[str, Any]:
    """A dead letter as JSON; payload in base64 only with ``content``."""
    position = {"partition": record.partition, "offset": record.offset}
    try:
        letter = msgspec.to_builtins(parse_dead_letter(record))
    except UnreadableRecord as error:
        letter = {"code": None, "detail": f"not a dead letter of this worker: {error}"}
    letter["position"] = position
    letter["bytes"] = len(record.value or b"")
    if content:
        letter["content"] = {
            "key": base64_text(record.key),
            "value": base64_text(record.value),
            "headers": [[name, base64_text(value)] for name, value in _own_headers(record)],
        }
    return dict(letter)


def _plain(value: Any) -> str:
    """A value for people: a record by its coordinates, earlier failures by their codes."""
    if isinstance(value, dict) and "offset" in value:
        where = f"{value['partition']}:{value['offset']}"
        return f"{value['topic']}-{where}" if "topic" in value else where
    if isinstance(value, list):
        return ", ".join(str(each["code"]) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _own_headers(record: Record) -> list[tuple[str, bytes | None]]:
    prefix = Header.DEAD_LETTER_PREFIX
    return [(name, value) for name, value in record.headers if not name.startswith(prefix)]


def _line(letter: dict[str, Any]) -> str:
    where = f"{letter['position']['partition']}:{letter['position']['offset']}"
    source = letter.get("source")
    origin = f"{source['topic']}-{source['partition']}:{source['offset']}" if source else "?"
    why = ": ".join(part for part in (letter.get("field"), letter["detail"]) if part)
    line = f"{where:<10}{letter.get('failed_at', ''):<26}{letter['code']!s:<24}{origin:<32}{why}"
    return printable(line.encode())
