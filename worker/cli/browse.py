"""What the commands share that look into an output topic."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import click

from worker.errors import FatalError
from worker.log.factory import open_reader
from worker.records import Record
from worker.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


class Coordinates(click.ParamType):
    """``PARTITION:OFFSET`` on the command line."""

    name = "partition:offset"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        partition, _, offset = str(value).partition(":")
        if not (partition.isdigit() and offset.isdigit()):
            self.fail("write PARTITION:OFFSET, as `list` shows it, e.g. 0:17", param, ctx)
        return int(partition), int(offset)


def list_options(command: Command) -> Command:
    """``--limit`` and ``--partition``."""
    command = click.option(
        "--limit", type=click.IntRange(1), default=100, show_default=True,
        help="Show at most this many, the last of each partition.",
    )(command)  # fmt: skip
    return click.option("--partition", type=click.IntRange(0), help="Only this partition.")(command)


def content_option(command: Command) -> Command:
    """``--content``: user content is only ever shown when asked for."""
    return click.option("--content", is_flag=True, help="Show user content too.")(command)


def last_records(settings: Settings, topic: str, partition: int | None, limit: int) -> list[Record]:
    """The last ``limit`` records of each partition, in order within each."""

    async def read() -> list[Record]:
        kept: dict[int, deque[Record]] = {}
        async with open_reader(settings) as reader:
            async for record in reader.read(topic, partition=partition):
                kept.setdefault(record.partition, deque(maxlen=limit)).append(record)
        return [record for number in sorted(kept) for record in kept[number]]

    return asyncio.run(read())


def one_record(settings: Settings, topic: str, coordinates: tuple[int, int]) -> Record:
    """The record at (partition, offset).

    Raises:
        FatalError: there is none.
    """
    partition, offset = coordinates

    async def read() -> Record | None:
        async with open_reader(settings) as reader:
            async for record in reader.read(topic, partition=partition, start=offset):
                return record if record.offset == offset else None
        return None

    record = asyncio.run(read())
    if record is None:
        raise FatalError(f"{topic} has no record at {partition}:{offset}; see `list`")
    return record


def printable(content: bytes | None) -> str:
    """Bytes of a user for a terminal: control characters are escaped, so that none takes effect."""
    text = (content or b"").decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )


def base64_text(content: bytes | None) -> str | None:
    """Bytes for JSON."""
    return None if content is None else base64.b64encode(content).decode("ascii")
