"""What may stand in a log line: what the source says, what the operator configured, and numbers.

User content reaches a process as strings, so the rule is about strings. A message's template is
written in the source. An argument is rendered when it cannot be content: a number, an enumeration
member, a path, a ``Public`` string, or a string equal to one the operator chose (``publish``). Any
other string becomes ``<redacted: 57 characters>``, and an exception its class and code, because its
message may quote what it failed on. ``telemetry.content`` switches the rule off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

from pydantic import BaseModel

from worker.errors import ConfigurationError, DependencyUnavailable, FatalError, WorkerError
from worker.telemetry.names import Canonical, LogExtra

MAX_LENGTH = 500
MAX_WORDS = 10_000
_OWN_TEXT = (ConfigurationError, FatalError)
"""Errors whose message the worker writes about its own settings, files and state."""
_words: set[str] = set()

OPEN_LIBRARIES = (
    *("aiokafka", "aiohttp", "botocore", "boto3", "faust", "kafka", "mode", "s3transfer"),
    *("opentelemetry", "urllib3"),
)
"""Libraries that write templates and arguments. Others format first: their text is withheld."""
_WARNED = re.compile(r"[^\n:]+:\d+: \w+")
_PLAIN_START = re.compile(r"[A-Za-z ,.:_-]+")


OPERATOR_ROOMS = (
    "worker.policy",
    "worker.judge.local.loading",
    "worker.judge.local.memory",
    "worker.cli",
    "worker.settings",
)
"""Loggers of rooms that read what the operator wrote and never see an event."""


NAME_FIELDS = frozenset({Canonical.TOPIC, Canonical.POLICY, LogExtra.DEPENDENCY})
"""Extra fields that hold names the operator or the source chose, in the form of Kafka's topics."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Public(str):
    """A string the source vouches for: no part of it came from a user."""

    __slots__ = ()


def publish(words: Iterable[str]) -> None:
    """Allow these exact strings in log lines: names of policies, topics, models, groups."""
    for word in words:
        if word and len(_words) < MAX_WORDS:
            _words.add(word)


def publish_settings(settings: BaseModel) -> None:
    """Allow every string of a settings tree; secrets are no strings there and stay out."""
    for value in vars(settings).values():
        if isinstance(value, BaseModel):
            publish_settings(value)
        elif isinstance(value, str):
            publish((value,))
        elif isinstance(value, (tuple, list)):
            publish(each for each in value if isinstance(each, str))


def _names_exception(word: str) -> bool:
    if not word.isidentifier() or len(word) > 80:
        return False
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ == word:
            return True
        waiting += type.__subclasses__(kind)
    return False


def scrubbed(value: object) -> object:
    """``value`` as it may be formatted into a message."""
    if value is None or isinstance(value, (bool, int, float, Enum, Path, Public)):
        return value
    if isinstance(value, str):
        known = value in _words or _names_exception(value)
        return value if known else f"<redacted: {len(value)} characters>"
    if isinstance(value, BaseException):
        return describe(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<redacted: {len(value)} bytes>"
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, Mapping):
        return {scrubbed(key): scrubbed(each) for key, each in list(value.items())[:50]}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [scrubbed(each) for each in list(value)[:50]]
    return f"<{type(value).__qualname__}>"


def describe(error: BaseException) -> str:
    """An exception without what it may quote: its class, and its code or its own text."""
    name = type(error).__qualname__
    if isinstance(error, _OWN_TEXT):
        return f"{name}: {str(error)[:MAX_LENGTH]}"
    if isinstance(error, DependencyUnavailable):
        return f"{name}: {error.dependency}"
    if isinstance(error, WorkerError):
        return f"{name}: {error.code}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name}: errno {error.errno}"
    return name


def scrubbed_field(name: str, value: object) -> object:
    """``value`` of an extra field: a name where the field holds names, else like an argument."""
    if name in NAME_FIELDS and isinstance(value, str) and _NAME.fullmatch(value):
        return value
    return scrubbed(value)


_NAMED = re.compile(r"%\(([^)]*)\)")


def scrub_arguments(logger: str, text: str, args: object) -> object:
    """The ``args`` of a log record with template ``text``, each scrubbed.

    They are left as they are where ``logger`` belongs to a room that never sees an event.
    """
    if any(logger == room or logger.startswith(f"{room}.") for room in OPERATOR_ROOMS):
        return args
    if isinstance(args, Mapping):
        # A mapping alone is formatted by its names, or whole: then its keys are data as well.
        wanted = _NAMED.findall(text)
        return {key: scrubbed(args[key]) for key in wanted if key in args} or scrubbed(args)
    if isinstance(args, tuple):
        return tuple(scrubbed(each) for each in args)
    return args


def template(logger: str, message: object, own: str = "worker") -> str:
    """The message's template, or what is left of it where a library formatted it already."""
    room = logger.partition(".")[0]
    if isinstance(message, str) and (room == own or logger.startswith(OPEN_LIBRARIES)):
        return message
    if room == "asyncio" and (start := _PLAIN_START.match(str(message))):
        # "Task exception was never retrieved", then a repr that quotes the exception.
        return start.group().strip()
    if logger == "py.warnings" and (start := _WARNED.match(str(message))):
        return start.group()  # the standard library formats it: place and class, then the text
    return "<message withheld>"
