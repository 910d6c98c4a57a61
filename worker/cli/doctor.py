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
def doctor(config: Path | None, as_json: bool, skip_model: bool) -> None:
    """Look at policies, log, topics, store and model; exit code 1 if anything is wrong."""
    settings = load_settings(config)
    found = asyncio.run(_run(settings, not skip_model, as_json))
    if as_json:
        click.echo(msgspec.json.encode({"ok": all(each.ok for each in found), "checks": found}))
    raise SystemExit(0 if all(each.ok for each in found) else 1)


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
