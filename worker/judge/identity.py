"""Which checkpoint, adapter and template answered: the digests that verdicts carry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from worker.guard.base import GuardModel

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


def template_digest(template: str, guard: GuardModel) -> str:
    """SHA-256 (hex) of the chat template and the format in which earlier turns stand in it."""
    earlier = guard.context_format()
    return hashlib.sha256(f"{len(template)}:{template}{earlier}".encode()).hexdigest()
