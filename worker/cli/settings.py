"""``settings``: what can be set, what it means, what it is now and where that comes from."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click
import msgspec

from worker.cli.options import config_option, json_option


@click.group()
def settings() -> None:
    """Ask about settings: their values now, their meaning, their schema."""


@settings.command()
@config_option
@json_option
@click.option("--changed", is_flag=True, help="Only settings that are not the default.")
@click.argument("section", required=False, default="")
def show(config: Path | None, as_json: bool, changed: bool, section: str) -> None:
    """Print what each setting is and where it comes from; secrets are hidden.

    With SECTION, such as kafka or judge.remote, only what is in it.
    """
    from worker.settings.reference import effective

    found = [
        each
        for each in effective(config)
        if (f"{each.path}.").startswith(f"{section}." if section else "")
        and not (changed and each.source == "default")
    ]
    if section and not found and not changed:
        raise click.UsageError(_unknown(section, sections=True))
    if as_json:
        click.echo(msgspec.json.encode({"settings": found}))
        return
    width = max((len(each.path) for each in found), default=0)
    for each in found:
        value = "unset" if each.value is None else _said(each.value)
        click.echo(f"{each.path:<{width}}  {value}" + click.style(f"  ({each.source})", dim=True))


@settings.command()
def schema() -> None:
    """Print the JSON Schema of a settings file, for editors and checks."""
    from worker.settings import Settings

    tree = Settings.model_json_schema()
    tree["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    click.echo(msgspec.json.format(msgspec.json.encode(tree), indent=2))


@settings.command()
@json_option
@click.option("--all", "page", is_flag=True, help="Print the page about all settings.")
@click.argument("path", required=False)
def explain(path: str | None, as_json: bool, page: bool) -> None:
    """Print what a setting, such as judge.max_batch_tokens, means and may be.

    A section's name explains all that is in it.
    """
    from worker.settings.reference import every_setting, reference_page

    if page == (path is not None):
        raise click.UsageError("name a setting or a section, or ask for --all")
    if page:
        click.echo(reference_page(), nl=False)
        return
    found = [each for each in every_setting() if f"{each.path}.".startswith(f"{path}.")]
    if not found:
        raise click.UsageError(_unknown(path or ""))
    if as_json:
        click.echo(msgspec.json.encode({"settings": found}))
        return
    for number, each in enumerate(found):
        click.echo(("\n" if number else "") + click.style(each.path, bold=True))
        click.echo(f"  {each.meaning}")
        click.echo(f"  value:     {each.kind}")
        click.echo(f"  default:   {'unset' if each.default is None else _said(each.default)}")
        click.echo(f"  variable:  {each.variable}")


def _said(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _unknown(path: str, *, sections: bool = False) -> str:
    from worker.settings.reference import every_setting

    known = [each.path for each in every_setting()]
    names = {each.rpartition(".")[0] for each in known} - {""}
    near = difflib.get_close_matches(path, names if sections else {*names, *known}, n=1)
    if not near:  # the last word may be right where the section is not
        near = [each for each in known if each.endswith(f".{path.rpartition('.')[2]}")][:1]
    hint = f"did you mean `{near[0]}`?" if near else "`settings explain --all` lists them"
    return f"no {'section' if sections else 'setting'} is named `{path}`; {hint}"
