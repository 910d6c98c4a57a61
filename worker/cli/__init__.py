"""The command line: one module a command, imported only when that command is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from worker import __version__
from worker.errors import DependencyUnavailable, WorkerError

COMMANDS = {
    "run": ("worker.cli.run:run", "Run the worker: events in, verdicts out"),
    "demo": ("worker.cli.demo:demo", "Stream scripted conversations, on this machine alone"),
    "judge": ("worker.cli.judge:judge", "Judge one thing by hand, or events on standard input"),
    "doctor": ("worker.cli.doctor:doctor", "Find what is wrong, and say how to mend it"),
    "policy": ("worker.cli.policy:policy", "Check, show, compare and import policies"),
    "topics": ("worker.cli.topics:topics", "Create and check topics"),
    "deadletter": ("worker.cli.deadletter:deadletter", "Look at records that are no event"),
    "quarantine": ("worker.cli.quarantine:quarantine", "Look at content held for a person"),
    "schema": ("worker.cli.schema:schema", "Export the published contracts"),
    "bench": ("worker.cli.bench:bench", "Measure the pipeline and the judge"),
}


class LazyGroup(click.Group):
    """Lists every command without importing it, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

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
