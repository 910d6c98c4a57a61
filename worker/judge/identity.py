"""Which checkpoint, adapter and template answered: the digests that verdicts carry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from worker.guard.context import fold_context
from worker.text.fold import VERSION

_WEIGHTY = (".safetensors", ".json", ".jinja", ".model")
_CHUNK = 1 << 20


def directory_digest(directory: Path) -> str:
    """SHA-256 (hex) over the names and bytes of a directory's own weights and settings files."""
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.is_file() and file.suffix in _WEIGHTY:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(_CHUNK):
                    digest.update(block)
    return digest.hexdigest()


def template_digest(template: str) -> str:
    """SHA-256 (hex) of all that stands between a text and the model: the chat template, the format
    in which earlier turns are quoted, and what texts are folded to (``worker.text.fold``).
    """
    quoted = fold_context([("user", "{earlier}")], "{judged}")
    known = f"{len(template)}:{template}{quoted}fold {VERSION}"
    return hashlib.sha256(known.encode()).hexdigest()
