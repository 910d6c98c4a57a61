"""``moderation-worker schema``: the published contracts, from the types."""

from __future__ import annotations

from pathlib import Path

import click

from worker.contracts.code_table import code_tables
from worker.contracts.export import drift, export


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
