"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """``--config FILE``: the YAML settings; the command receives ``config: Path | None``."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="MODERATION_CONFIG",
        help="YAML settings file; MODERATION_<SECTION>__<FIELD> variables stand over it.",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``: one JSON object on standard output; the command receives ``as_json: bool``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )
