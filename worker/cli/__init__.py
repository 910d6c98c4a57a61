"""The command line: one module a command, imported only when that command is asked for."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any

import click

from worker import __version__
from worker.errors import DependencyUnavailable, WorkerError

COMMANDS = {
    "run": ("worker.cli.run:run", "Run the worker: events in, verdicts out"),
    "judge": ("worker.cli.judge:judge", "Judge one thing by hand, or events on standard input"),
    "doctor": ("worker.cli.doctor:doctor", "Find what is wrong, and say how to mend it"),
    "policy": ("worker.cli.policy:policy", "Check, show, compare and import policies"),
    "topics": ("worker.cli.topics:topics", "Create and check topics"),
    "deadletter": ("worker.cli.deadletter:deadletter", "Look at records that are no event"),
    "quarantine": ("worker.cli.quarantine:quarantine", "Look at content held for a person"),
    "settings": ("worker.cli.settings:settings", "What can be set, what it is, and from where"),
    "schema": ("worker.cli.schema:schema", "Export the published contracts"),
}

TOOLS = {
    "demo": "Stream scripted conversations, on this machine alone",
    "bench": "Measure the pipeline and the judge",
}
"""Commands of the distribution ``moderation-worker-tools``, which production does not install."""

TOOLS_GROUP = "moderation_worker.commands"
"""The entry points under which a distribution adds commands."""


class LazyGroup(click.Group):
    """Lists every command without importing it, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *TOOLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command: click.Command
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(module), name)
            return command
        for entry in entry_points(group=TOOLS_GROUP, name=cmd_name):
            command = entry.load()
            return command
        if cmd_name in TOOLS:
            raise click.UsageError(
                f"`{cmd_name}` is one of the tools, which are installed apart: "
                "pip install 'moderation-worker[tools]'"
            )
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        texts = {name: text for name, (_, text) in COMMANDS.items()}
        with formatter.section("Commands"):
            formatter.write_dl(list(texts.items()))
        with formatter.section("Tools (moderation-worker[tools])"):
            formatter.write_dl(list(TOOLS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Errors raised on purpose end a command with their message alone, never a traceback."""
        try:
            return super().invoke(ctx)
        except WorkerError as error:
            away = isinstance(error, DependencyUnavailable)
            hint = ". `moderation-worker doctor` looks at each part and says how to mend it"
            click.echo(f"error: {error}{hint if away else ''}", err=True)
            ctx.exit(2 if error.code in ("configuration", "policy") else 1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moderation-worker")
def main() -> None:
    """Judge conversation events from Kafka, one verdict each, exactly once.

    \b
    See it work:        moderation-worker demo
    One thing by hand:  moderation-worker judge --text "how do I bake a cake"
    For real:           moderation-worker doctor --config worker.yaml
                        moderation-worker topics create --config worker.yaml
                        moderation-worker run --config worker.yaml

    Settings come from --config, and from MODERATION_<SECTION>__<FIELD> variables over it.
    """


if __name__ == "__main__":
    sys.exit(main())
