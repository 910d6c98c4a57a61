"""``doctor``: find what is wrong with a deployment, and say how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from worker.doctor.memory import Line, MemoryReport
import asyncio
from pathlib import Path

import msgspec

from worker.cli.options import config_option, json_option
from worker.doctor.checks import Diagnosis, diagnose
from worker.settings import Settings, load_settings

# How ``doctor --memory`` prints its plan.

_MIB = 1024**2
_WIDTH = 100


def show(report: MemoryReport) -> None:
    """The plan as a table, what would fit, and what to change."""
    numerics = "" if report.numerics == "model" else f", matrices in {report.numerics}"
    click.echo(f"{report.model} in {report.dtype}{numerics}")
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("part", footer="needed")
    table.add_column("MiB", justify="right", footer=_mib(report.needed_bytes))
    table.add_column("what", footer=f"of {_mib(report.card_bytes)} MiB: {report.card}")
    for line in report.lines:
        if line.counted:
            table.add_row(line.part, _mib(line.bytes), line.detail)
    Console(width=_WIDTH, highlight=False).print(table)
    narrower = ", ".join(_moment(line) for line in report.lines if not line.counted)
    click.echo(f"in turn with the last, not beside it: {narrower}")
    click.echo("\nlargest value that fits, all else as it is:")
    for name, value in (
        ("judge.max_batch_tokens", report.largest.max_batch_tokens),
        ("judge.max_context", report.largest.max_context),
        ("policies", report.largest.policies),
    ):
        click.echo(f"  {name:<24} {'none' if value is None else value}")
    for each in report.fitted:
        click.echo(
            f"lowered at start, as it is not set: {each.setting} {each.to} (from {each.now})"
        )
    for note in report.notes:
        click.echo(f"note: {note}")
    if report.fits:
        click.echo(click.style("fits", fg="green"))
        return
    click.echo(click.style("does not fit", fg="red", bold=True) + f": {report.summary}")


def _mib(count: int) -> str:
    return f"{count / _MIB:,.0f}"


def _moment(line: Line) -> str:
    return f"{line.part} {_mib(line.bytes)} MiB"


@click.command()
@config_option
@json_option
@click.option("--skip-model", is_flag=True, help="Do not load the model (it can take minutes).")
@click.option("--memory", is_flag=True, help="Plan the device's memory instead; loads nothing.")
@click.option("--card", metavar="SIZE", help="With --memory: plan for a card of 8GiB, 24GB, ...")
@click.option(
    "--numerics",
    type=click.Choice(["model", "int8", "fp8", "w8a16"]),
    help="With --memory: plan with this judge.numerics instead.",
)
@click.option(
    "--event-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --memory: own tokens of an event that thinks (image, text, constant text).",
)
def doctor(
    config: Path | None,
    as_json: bool,
    skip_model: bool,
    memory: bool,
    card: str | None,
    numerics: str | None,
    event_tokens: int | None,
) -> None:
    """Look at policies, log, topics, store and model; exit code 1 if anything is wrong.

    With --memory, add up what the settings and policies take on the device: weights, the policies'
    keys and values, the widest batch the settings allow, images, traces and long contexts. Every
    term is the most that may be needed. Exit code 1 where it does not fit, with the settings to
    change and values that fit.

    \b
    What does this deployment take here?  moderation-worker doctor --memory --config worker.yaml
    Would it fit another card?            moderation-worker doctor --memory --card 8GiB
    """
    settings = load_settings(config)
    if memory:
        raise SystemExit(_memory(settings, as_json, card, numerics, event_tokens))
    if card or numerics or event_tokens:
        raise click.UsageError("--card, --numerics and --event-tokens go with --memory")
    found = asyncio.run(_run(settings, not skip_model, as_json))
    if as_json:
        click.echo(msgspec.json.encode({"ok": all(each.ok for each in found), "checks": found}))
    raise SystemExit(0 if all(each.ok for each in found) else 1)


def _memory(
    settings: Settings,
    as_json: bool,
    card: str | None,
    numerics: str | None,
    event_tokens: int | None,
) -> int:
    # Imported here: the model's libraries take seconds.
    # MOVED
    from worker.doctor.memory import memory_report

    if numerics is not None:
        judge = settings.judge.model_copy(update={"numerics": numerics})
        settings = settings.model_copy(update={"judge": judge})
    report = memory_report(settings, card=card, event_tokens=event_tokens)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        show(report)
    return 0 if report.fits else 1


async def _run(settings: Settings, model: bool, as_json: bool) -> list[Diagnosis]:
    found = []
    async for each in diagnose(settings, model=model):
        found.append(each)
        if not as_json:
            _print(each)
    return found


def _print(each: Diagnosis) -> None:
    mark = click.style("ok  ", fg="green") if each.ok else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{mark}  {each.check}" + (f": {each.detail}" if each.detail else ""))
    if each.fix:
        click.echo(f"      fix: {each.fix}")
