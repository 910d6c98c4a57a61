"""The directory store: ``DIRECTORY/bucket/key`` on this machine, with the semantics of S3.

Every component of a key is opened below the one before it and never through a symbolic link, so no
key and no change to the tree while it is read leads out of the directory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL})
# ELOOP: a symbolic link met O_NOFOLLOW. ENXIO: a socket, or a FIFO without a writer.
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_COMPONENT = _DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO must not wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryStore:
    """Reads ``directory/bucket/key``. It keeps no versions: a ``version_id`` is never served."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, key: ObjectKey, max_bytes: int) -> bytes:
        if key.version_id is not None:
            raise _undecided(UndecidedReason.IMAGE_MISSING, "the directory store keeps no versions")
        components = [key.bucket, *key.key.split("/")]
        if any(part in {"", ".", ".."} or "\0" in part for part in components):
            raise _undecided(UndecidedReason.IMAGE_MISSING, "no such path in a directory store")
        root = self._open_root()
        try:
            handle = _open_below(root, components)
        except OSError as error:
            raise _translate(error) from None
        finally:
            os.close(root)
        try:
            return _read(handle, max_bytes)
        finally:
            os.close(handle)

    def check(self) -> None:
        try:
            root = self._open_root()
        except DependencyUnavailable as error:
            raise ConfigurationError(
                f"store.directory: {error.detail}; make the directory or set store.directory"
            ) from None
        os.close(root)

    def close(self) -> None:
        """Nothing is held open."""

    def _open_root(self) -> int:
        try:
            return os.open(self._directory, _DIRECTORY)
        except OSError as error:
            detail = f"{self._directory}: {os.strerror(error.errno or 0)}"
            raise DependencyUnavailable("store", detail) from None


def _open_below(root: int, components: list[str]) -> int:
    """Open the last component below all others; the caller closes both descriptors."""
    parent = os.dup(root)
    try:
        for component in components[:-1]:
            below = os.open(component, _COMPONENT, dir_fd=parent)
            os.close(parent)
            parent = below
        return os.open(components[-1], _FILE, dir_fd=parent)
    finally:
        os.close(parent)


def _read(handle: int, max_bytes: int) -> bytes:
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        raise _undecided(UndecidedReason.IMAGE_MISSING, "a directory, not an object")
    if not stat.S_ISREG(status.st_mode):
        raise _undecided(UndecidedReason.IMAGE_FORBIDDEN, "not a regular file")
    chunks: list[bytes] = []
    left = max_bytes + 1
    if status.st_size > max_bytes:
        raise _undecided(UndecidedReason.IMAGE_TOO_LARGE, f"more than {max_bytes} bytes")
    try:
        while left and (chunk := os.read(handle, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as error:
        raise _translate(error) from None
    if not left:  # it grew while it was read
        raise _undecided(UndecidedReason.IMAGE_TOO_LARGE, f"more than {max_bytes} bytes")
    return b"".join(chunks)


def _translate(error: OSError) -> Undecided | DependencyUnavailable:
    """An error of this path, or of the file system under it (stale mounts, I/O errors)."""
    if error.errno in _MISSING:
        return _undecided(UndecidedReason.IMAGE_MISSING, "no such object")
    if error.errno in _FORBIDDEN:
        return _undecided(UndecidedReason.IMAGE_FORBIDDEN, "not readable as a plain file")
    return DependencyUnavailable("store", os.strerror(error.errno or errno.EIO))


def _undecided(reason: UndecidedReason, detail: str) -> Undecided:
    return Undecided(reason, field="uri", detail=detail)
