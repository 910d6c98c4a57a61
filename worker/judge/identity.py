"""Which checkpoint, adapter and template answered: the names and digests that verdicts carry."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from worker.errors import ConfigurationError
from worker.guard.context import fold_context
from worker.settings import Settings
from worker.text.fold import VERSION

DEMONSTRATION = "demonstration/"
"""Stands in front of the id of a model that was made to be looked at, not to moderate."""
MARK = "moderation_worker"
"""Key of a checkpoint's ``config.json`` under which it says what it is; copies keep it."""


class Marked(NamedTuple):
    """What a checkpoint says of itself. ``family`` is what examples call it; None: it is silent."""

    demonstration: bool = False
    family: str | None = None


def marked(config: Any) -> Marked:
    """Read the mark of a checkpoint's settings (the content of ``config.json``, or any object)."""
    mark = config.get(MARK) if isinstance(config, dict) else getattr(config, MARK, None)
    if not isinstance(mark, dict):
        return Marked()
    family = mark.get("family")
    return Marked(mark.get("demonstration") is True, family if isinstance(family, str) else None)


def is_demonstration(model_id: str) -> bool:
    """Whether a model, by the id that verdicts give it, must not serve a real log by accident."""
    return model_id.startswith(DEMONSTRATION)


def refuse_demonstration(settings: Settings, model_id: str | None = None) -> None:
    """Refuse a judge on a real log that was made for demonstrations, unless it was asked for.

    ``model_id`` is the loaded judge's; before one is loaded, a directory is asked by its mark.

    Raises:
        ConfigurationError: names the setting that says which model to serve.
    """
    judge = settings.judge
    if settings.log.backend != "kafka" or judge.allow_demonstration:
        return
    if model_id is None:
        model_id = _named(settings)
    if model_id is not None and is_demonstration(model_id):
        raise ConfigurationError(
            f"judge.{'backend' if judge.backend == 'scripted' else 'model'}: {model_id} is for "
            "demonstrations and cannot tell what is harmful, and log.backend is kafka; name your "
            "model in judge.model (and judge.backend), or set judge.allow_demonstration: true"
        )


def _named(settings: Settings) -> str | None:
    """The id of a judge, as far as it can be known before it is loaded."""
    judge = settings.judge
    if judge.backend == "scripted":
        return f"{DEMONSTRATION}scripted"
    if judge.backend != "local":
        return None
    directory = Path(judge.model).expanduser()
    if judge.model == "tiny":
        # Imported here: the bundled checkpoint is an optional part of an installation.
        from worker.checkpoints import TINY

        directory = Path(TINY)
    try:
        mark = marked(msgspec.json.decode((directory / "config.json").read_bytes()))
    except (OSError, msgspec.DecodeError):  # whoever loads it says what is wrong with it
        return None
    return f"{DEMONSTRATION}{mark.family or directory.name}" if mark.demonstration else None


def template_digest(template: str) -> str:
    """SHA-256 (hex) of all that stands between a text and the model: the chat template, the format
    in which earlier turns are quoted, and what texts are folded to (``worker.text.fold``).
    """
    quoted = fold_context([("user", "{earlier}")], "{judged}")
    known = f"{len(template)}:{template}{quoted}fold {VERSION}"
    return hashlib.sha256(known.encode()).hexdigest()
