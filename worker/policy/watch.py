"""Reading a policy directory as one moment in time, cheaply enough to be asked every second."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from worker.errors import PolicyError
from worker.policy.bundle import list_files, policy_files
from worker.policy.parse import read_policy_bytes

_ATTEMPTS = 5

_Signature = tuple[tuple[str, int, int, int, int], ...]


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was read: its bytes, or the problem that kept them."""

    path: Path
    sha256: str
    raw: bytes = b""
    problem: PolicyError | None = None


class DirectoryWatch:
    """Looks at a directory; reads it whole when anything about its files changed.

    Lists of prefilters (``*.txt``) count as parts of the policies beside them.
    Files are compared through symbolic links, so a ConfigMap that swaps its ``..data`` link counts
    as changed. A directory that changes while it is read is read again: never half old, half new.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen: _Signature | None = None
        self._content: tuple[tuple[str, str], ...] | None = None

    def changed(self) -> tuple[PolicyFile, ...] | None:
        """Every file, if any content changed since the last call; None otherwise.

        Raises:
            PolicyError: the directory cannot be read, or does not hold still.
        """
        before = self._signature()
        if before == self._seen:
            return None
        for _ in range(_ATTEMPTS):
            files = tuple(_read(path) for path in policy_files(self.directory))
            lists = tuple(_read_list(path) for path in list_files(self.directory))
            after = self._signature()
            if after == before:
                break
            before = after
        else:
            problem = "the files keep changing while they are read"
            raise PolicyError(problem, fix="Write them aside, then move.", file=str(self.directory))
        content = (*((str(file.path), file.sha256) for file in files), *lists)
        self._seen = before
        if content == self._content:
            return None
        self._content = content
        return files

    def forget(self) -> None:
        """Make the next call give every file, changed or not."""
        self._seen = self._content = None

    def _signature(self) -> _Signature:
        signature = []
        for path in (*policy_files(self.directory), *list_files(self.directory)):
            try:
                stat = path.stat()
            except OSError:
                continue  # gone since it was listed: the next look sees the directory without it
            signature.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev))
        return tuple(signature)


def _read(path: Path) -> PolicyFile:
    try:
        raw = read_policy_bytes(path)
    except PolicyError as error:
        return PolicyFile(path=path, sha256=f"unreadable: {error}", problem=error)
    return PolicyFile(path=path, sha256=hashlib.sha256(raw).hexdigest(), raw=raw)


def _read_list(path: Path) -> tuple[str, str]:
    try:
        return str(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:  # its policy says what is wrong with it
        return str(path), f"unreadable: {error.strerror}"
