"""``bench``: ratios measured in one run, on this machine."""

from __future__ import annotations

import asyncio

import click

from moderation_tools.bench.judge import main as judge_bench
from moderation_tools.bench.pipeline import compare, memory, table


@click.group()
def bench() -> None:
    """Measure the pipeline and the judge; prints tables of ratios."""


broker_option = click.option(
    "--bootstrap-servers",
    envvar="MODERATION_KAFKA__BOOTSTRAP_SERVERS",
    required=True,
    help="A broker to measure on; `make bench` boots one.",
)


def _say(text: str) -> None:
    click.echo(text, err=True)


@bench.command()
@broker_option
@click.option("--events", default=40_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def pipeline(bootstrap_servers: str, events: int, rounds: int) -> None:
    """The whole worker with the scripted judge, beside bare loops on the same broker."""
    click.echo(table(asyncio.run(compare(bootstrap_servers, events, rounds, _say))))


@bench.command("memory")
@broker_option
def memory_(bootstrap_servers: str) -> None:
    """Resident memory of the worker from the 50,000th to the 300,000th event."""
    result = asyncio.run(memory(bootstrap_servers, _say))
    for events, rss in sorted(result.rss.items()):
        if events % 50_000 == 0:
            click.echo(f"{events:8,} events  {rss / 2**20:7.1f} MiB")
    click.echo(f"growth {result.growth:+.1%}")


bench.add_command(judge_bench, "judge")

_passed_on = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
_everything = {"ignore_unknown_options": True, "help_option_names": []}


@bench.command("engine", context_settings=_everything)
@_passed_on
def engine_(arguments: tuple[str, ...]) -> None:
    """Verdicts, policies, images, traces and latency of the engine; --help lists its options."""
    from moderation_tools.bench.engine.__main__ import main

    main(arguments)


@bench.command("think", context_settings=_everything)
@_passed_on
def think_(arguments: tuple[str, ...]) -> None:
    """What a reasoning trace costs beside a verdict; --model measures a real checkpoint."""
    from moderation_tools.bench.engine.__main__ import main

    main(("--tables", "think", *arguments))
