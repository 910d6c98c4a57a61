"""Digests of directories of weights, as verdicts and policy hashes name them."""

from __future__ import annotations

import hashlib
from pathlib import Path

WEIGHTY = (".safetensors", ".json", ".jinja", ".model")
"""Endings of the files that decide what a model answers."""
_CHUNK = 1 << 20


def directory_digest(directory: Path) -> str:
    """SHA-256 (hex) over the names and bytes of a directory's own weights and settings files."""
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.is_file() and file.suffix in WEIGHTY:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(_CHUNK):
                    digest.update(block)
    return digest.hexdigest()


def weighty_files(directory: Path) -> dict[str, bytes]:
    """Name and bytes of a small directory's own weights and settings files, by name."""
    return {
        file.name: file.read_bytes()
        for file in sorted(directory.iterdir())
        if file.is_file() and file.suffix in WEIGHTY
    }


def files_digest(files: dict[str, bytes]) -> str:
    """``directory_digest`` of files that were read: weights and digest come from one read."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
