"""``demo``: scripted conversations through the real worker, on this machine alone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from worker.cli.options import config_option, json_option


@click.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="Exit after the summary, on a terminal too.")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=6066,
    show_default=True,
    help="Port of the console.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".demo"),
    show_default=True,
    help="Where log, pictures and settings of the demonstration lie; emptied first.",
)
@json_option
@click.pass_context
def demo(context: click.Context, once: bool, port: int, directory: Path, as_json: bool) -> None:
    """Stream scripted conversations through the real worker, on this machine alone.

    The worker runs as its own process, with the embedded log, the directory object store and the
    bundled demonstration checkpoint: no broker, no GPU, no download. On a terminal its console
    stays at http://127.0.0.1:6066 until Ctrl-C. MODERATION_ variables are left out of account.
    """
    if context.invoked_subcommand is not None:
        return
    from moderation_tools.demo.run import run_demo

    stay = sys.stdout.isatty() and not once and not as_json
    raise SystemExit(asyncio.run(run_demo(directory, port, as_json=as_json, stay=stay)))


@demo.command()
@config_option
@click.option("--rounds", default=1, show_default=True, help="How often the script is written.")
def produce(config: Path | None, rounds: int) -> None:
    """Write the script's records to the configured log, and its pictures to the store."""
    from moderation_tools.demo.produce import produce_script

    written = asyncio.run(produce_script(config, rounds))
    click.echo(f"wrote {written} records")
