"""``judge``: one thing by hand, or events as JSON lines on standard input."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import click
import msgspec

from worker.cli.choose_policy import choose_policy
from worker.cli.options import config_option, json_option
from worker.cli.pretty import print_verdict
from worker.clock import SystemClock
from worker.contracts.decode import decode_event
from worker.contracts.encode import encode
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import SourceRef, Verdict
from worker.errors import ConfigurationError, Undecided, UnreadableRecord
from worker.media.local_files import SCHEME
from worker.policy.model import Policy
from worker.processing.session import Session, open_session
from worker.records import Record
from worker.settings import Settings, load_settings

IN_FLIGHT = 64
"""Events of standard input being judged at once; the judge batches them."""
INPUT = "command-line"


@click.command()
@click.option("--text", help="What the user wrote.")
@click.option("--response", help="What the assistant answered.")
@click.option("--image", "images", multiple=True, help="FILE or s3://bucket/key; may be repeated.")
@click.option("--policy", "policy_name", help="Name of a policy, or a policy file.")
@click.option(
    "--custom-policy",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Text file of your own rules, one a line.",
)
@click.option("--think", is_flag=True, help="Write a reasoning trace, whatever the policy says.")
@config_option
@json_option
def judge(
    text: str | None,
    response: str | None,
    images: tuple[str, ...],
    policy_name: str | None,
    custom_policy: Path | None,
    think: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Judge one thing by hand, or events as JSON lines on standard input.

    \b
    moderation-worker judge --text "where can I buy a grenade"
    moderation-worker judge --text "look" --image picture.png --think
    moderation-worker judge --text "..." --response "..." --policy developer-tools
    moderation-worker judge --json < events.jsonl

    Without --policy the built-in taxonomy is judged. Exit code 0: every input was judged or named
    as unreadable; look at `outcome` for what was found.
    """
    if policy_name and custom_policy:
        raise click.UsageError("--policy and --custom-policy: give one of the two")
    by_hand = bool(images) or text is not None or response is not None
    if by_hand and not (text or images):
        raise click.UsageError(
            "--text is empty: give --text or --image"
            if text is not None
            else "--response: give --text or --image too, the turn it answers"
        )
    for option, said in (("--text", text), ("--response", response)):
        if said is not None and not _is_utf8(said):
            raise click.UsageError(f"{option}: not UTF-8")
    if not by_hand and sys.stdin.isatty():
        raise click.UsageError("nothing to judge: give --text or --image, or pipe in JSON lines")
    settings = load_settings(config)
    policy = choose_policy(policy_name, custom_policy, settings.policies.directory, think)
    event = _event(text or "", response, images, settings) if by_hand else None
    asyncio.run(_judge(settings, policy, event, as_json))


def _event(text: str, response: str | None, images: tuple[str, ...], settings: Settings) -> Event:
    remote = [image.startswith("s3://") for image in images]
    if any(remote) and not all(remote):
        raise click.UsageError("--image: files and s3:// objects cannot be mixed in one call")
    if any(remote) and settings.store.backend == "s3" and not settings.store.buckets:
        raise ConfigurationError("store.buckets: list the buckets that may be read")
    refs = tuple(
        ImageRef(uri=image if image.startswith("s3://") else f"{SCHEME}{Path(image).absolute()}")
        for image in images
    )
    messages = [Message(role="user", text=text, images=refs)]
    if response is not None:
        messages.append(Message(role="assistant", text=response))
    return Event(id="by-hand", conversation_id="by-hand", messages=tuple(messages))


def _is_utf8(text: str) -> bool:
    """Whether a shell's argument was text: bytes that are none arrive as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _judge(settings: Settings, policy: Policy, event: Event | None, as_json: bool) -> None:
    if sys.stderr.isatty():
        click.echo(f"loading {settings.judge.model} ...", err=True)
    async with open_session(settings) as session:
        if event is not None:
            source = SourceRef(topic=INPUT, partition=0, offset=0, timestamp=0)
            evaluation = await session.evaluator.evaluate(event, policy, source)
            _print(evaluation.verdict, as_json)
            return
        waiting: list[asyncio.Task[Verdict | dict[str, Any]]] = []
        async for number, line in _lines():
            work: Awaitable[Verdict | dict[str, Any]] = _line(
                session, settings, policy, number, line
            )
            waiting.append(asyncio.ensure_future(work))
            while waiting and (waiting[0].done() or len(waiting) >= IN_FLIGHT):
                _print(await waiting.pop(0), as_json)
        for each in waiting:
            _print(await each, as_json)


async def _lines() -> AsyncIterator[tuple[int, bytes]]:
    """Lines of standard input that are not blank, numbered from 1, read off the event loop."""
    number = 0
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        number += 1
        if line.strip():
            yield number, line


async def _line(
    session: Session, settings: Settings, policy: Policy, number: int, line: bytes
) -> Verdict | dict[str, Any]:
    """The verdict on one line, or why it is no event."""
    now = int(SystemClock().time() * 1e3)
    record = Record(
        topic=INPUT, partition=0, offset=number - 1, timestamp=now, key=None, value=line.rstrip()
    )
    try:
        decoded = decode_event(
            record,
            settings.stream.max_event_bytes,
            max_images=settings.store.max_images,
            judged=policy.judged,
        )
    except UnreadableRecord as error:
        failure = {"line": number, "code": error.code, "field": error.field, "detail": error.detail}
        return {"dead_letter": failure}
    source = SourceRef(topic=INPUT, partition=0, offset=number - 1, timestamp=now)
    fault: Undecided | None = decoded.fault
    evaluation = await session.evaluator.evaluate(decoded.event, policy, source, fault=fault)
    return evaluation.verdict


def _print(answer: Verdict | dict[str, Any], as_json: bool) -> None:
    if isinstance(answer, Verdict):
        if as_json:
            click.echo(encode(answer))
        else:
            print_verdict(answer)
    elif as_json:
        click.echo(msgspec.json.encode(answer))
    else:
        failure = answer["dead_letter"]
        click.secho(f"line {failure['line']} is no event: ", fg="yellow", nl=False)
        click.echo(" ".join(str(failure[name]) for name in ("code", "field", "detail")))
