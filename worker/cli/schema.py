"""``moderation-worker schema``: the published contracts, from the types."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from worker.contracts.decode import decode_event
from worker.contracts.schema import code_tables, drift, export
from worker.errors import Undecided, UnreadableRecord
from worker.records import Record


@click.group()
def schema() -> None:
    """Publish the contracts: JSON Schema, AsyncAPI, examples, codes."""


@schema.command("export")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("schemas"),
    show_default=True,
    help="Directory the documents are written to.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail where a document differs.")
def export_command(out: Path, check: bool) -> None:
    """Write every document, or check that they say what the types say."""
    if not check:
        for path in export(out):
            click.echo(path)
        return
    stale = drift(out)
    for path in stale:
        click.echo(f"{path} differs from the types", err=True)
    if stale:
        raise click.ClickException("run `moderation-worker schema export` and commit the result")
    click.echo(f"{out} says what the types say")


@schema.command("codes")
def codes_command() -> None:
    """Print every code and its meaning as Markdown."""
    click.echo(code_tables(), nl=False)


@schema.command("decode")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A record header.")
@click.option("--key", help="The record key.")
@click.option(
    "--max-bytes", type=int, default=10 * 1024 * 1024, show_default=True, help="Largest value read."
)
@click.option("--strict", is_flag=True, help="Exit 1 where a field is unknown, too.")
def decode_command(
    file: BinaryIO, headers: tuple[str, ...], key: str | None, max_bytes: int, strict: bool
) -> None:
    """Read FILE (standard input unless named) as one record, and print what the worker reads in it.

    Prints the event, its fault and the fields that are ignored, or why the record is a dead letter;
    exits 1 unless it is an event without fault.
    """
    record = Record(
        topic="",
        partition=0,
        offset=0,
        timestamp=0,
        key=None if key is None else key.encode(),
        value=file.read(),
        headers=tuple(_header(each) for each in headers),
    )
    try:
        decoded = decode_event(record, max_bytes)
    except UnreadableRecord as error:
        _print({"dead_letter": _why(error)})
        raise SystemExit(1) from None
    fault = decoded.fault
    unknown = [
        {"field": each.path, "kind": each.kind, "hint": each.hint} for each in decoded.unknown
    ]
    found = {"event": decoded.event, "undecided": None if fault is None else _why(fault)}
    _print({**found, **({"unknown_fields": unknown} if unknown else {})})
    if fault is not None or (strict and unknown):
        raise SystemExit(1)


def _header(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name, value.encode()


def _why(error: UnreadableRecord | Undecided) -> dict[str, str]:
    return {"code": str(error.code), "field": error.field, "detail": error.detail}


def _print(content: dict[str, object]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
