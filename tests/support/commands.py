"""Checks command lines written in charts, compose files and docs against the real command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

import click

from worker.cli import main

FENCE = re.compile(r"```(?:sh|bash|shell)\n(.*?)```", re.DOTALL)
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`moderation-worker ([a-z][^`\n]*)`")
PROGRAM = re.compile(r"(?:^|\s|-- )moderation-worker (?=[a-z-])")
ENDS = ("|", "&&", ";", "<", ">")


def problem(arguments: Sequence[str]) -> str | None:
    """Why the program would refuse these arguments, or None. Nothing is run.

    Checked are commands, subcommands, options and how many arguments there are; values are not.
    """
    command: click.Command = main
    context = click.Context(main, info_name="moderation-worker")
    rest = list(arguments)
    while isinstance(command, click.Group):
        try:
            given, rest, _ = command.make_parser(context).parse_args(rest)
        except click.UsageError as error:
            return f"{command.name}: {error.format_message()}"
        if not rest and (command.invoke_without_command or given.get("help")):
            return None
        name = rest.pop(0) if rest else ""
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name!r} in {' '.join(arguments)!r}"
        context = click.Context(found, info_name=name, parent=context)
        command = found
    try:
        _, left, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return f"{command.name}: {error.format_message()}"
    return f"{command.name}: too much: {' '.join(left)}" if left else None


def in_text(text: str) -> Iterator[list[str]]:
    """Arguments of every ``moderation-worker`` command in a Markdown page's shell blocks."""
    for block in FENCE.findall(text):
        yield from in_script(block)


def in_page(text: str) -> Iterator[list[str]]:
    """The same, with commands typed at a prompt (``$``) and those named in a sentence."""
    yield from in_text(text)
    for block in CONSOLE.findall(text):
        yield from in_script("\n".join(line for line in block.splitlines() if line[:2] == "$ "))
    for inline in INLINE.findall(text):
        yield from in_script(f"moderation-worker {inline}")


def in_script(script: str) -> Iterator[list[str]]:
    """Arguments of every ``moderation-worker`` command in a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        if match := PROGRAM.search(line):
            words = shlex.split(line[match.end() :], comments=True)
            cut = next((i for i, word in enumerate(words) if word in ENDS), None)
            yield words[:cut]
