"""How ``doctor --memory`` prints its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from worker.doctor_memory import Line, MemoryReport

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
