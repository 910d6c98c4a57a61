"""``doctor``: find what is wrong with a deployment, and say how to mend it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from worker.cli.options import config_option, json_option
from worker.doctor import Diagnosis, diagnose
from worker.settings import Settings, load_settings


@click.command()
@config_option
@json_option
@click.option("--skip-model", is_flag=True, help="Do not load the model (it can take minutes).")
@click.option("--memory", is_flag=True, help="Plan the device's memory instead; loads nothing.")
@click.option("--card", metavar="SIZE", help="With --memory: plan for a card of 8GiB, 24GB, ...")
@click.option(
    "--numerics",
    type=click.Choice(["model", "int8", "fp8", "weights8"]),
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
    from worker.cli.doctor_memory import show
    from worker.doctor_memory import memory_report

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
