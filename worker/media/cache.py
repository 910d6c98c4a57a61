"""Decoded images kept by content digest, bounded by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

import msgspec

from worker.images import JudgeImage
from worker.media.base import ObjectKey

_ENTRY_BYTES = 1_024
_NAME_BYTES = 3_072  # bucket, key, version and digest at their longest


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """What decoding gave: views to judge, or the code of a fault that the bytes have for ever.

    ``total`` counts the views that it takes to see everything, of which ``frames`` are the first.
    """

    frames: tuple[JudgeImage, ...] = ()
    total: int = 0
    scale: float = 1.0
    error: str | None = None
    detail: str = ""

    @property
    def size(self) -> int:
        """Bytes of pixels held."""
        return sum(len(frame.rgb) for frame in self.frames)


class _Entry:
    def __init__(self, decoded: Decoded) -> None:
        self.decoded = decoded
        self.names: set[ObjectKey] = set()

    @property
    def size(self) -> int:
        return self.decoded.size + _ENTRY_BYTES + len(self.names) * _NAME_BYTES


class ImageCache:
    """Least recently used entries go first; safe to call from several threads.

    A digest finds content whatever it was fetched as, once its bytes were read. Served without any
    read are only references that pin what they mean by version or digest, and only where that very
    bucket and key was read and checked before: a digest alone would let an event name one object
    and be judged by another. A missing object is not remembered, for it may come a moment later.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._names: dict[ObjectKey, str] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes held, overhead included; never more than the maximum."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: ObjectKey) -> tuple[str, Decoded] | None:
        """Digest and content of a pinned reference, or None where it has to be read."""
        with self._lock:
            digest = self._names.get(key)
            entry = self._touch(digest) if digest is not None else None
            return (digest, entry.decoded) if digest is not None and entry is not None else None

    def get(self, digest: str) -> Decoded | None:
        """Content of a digest, or None where it has to be decoded."""
        with self._lock:
            entry = self._touch(digest)
            return entry.decoded if entry is not None else None

    def put(self, key: ObjectKey, digest: str, decoded: Decoded) -> None:
        """Keep ``decoded``; ``key``, just read and checked, names it if it is pinned."""
        with self._lock:
            entry = self._remove(digest) or _Entry(decoded)
            if key.version_id is not None or key.sha256 is not None:
                self._forget(key)
                entry.names.add(key)
            if entry.size > self._max_bytes:
                return
            self._entries[digest] = entry
            self._names.update(dict.fromkeys(entry.names, digest))
            self._bytes += entry.size
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))

    def _touch(self, digest: str) -> _Entry | None:
        entry = self._entries.get(digest)
        if entry is not None:
            self._entries.move_to_end(digest)
        return entry

    def _forget(self, key: ObjectKey) -> None:
        """Take a name from the content it stood for: a version that changed was no version."""
        digest = self._names.pop(key, None)
        if digest is not None and key in self._entries[digest].names:
            self._entries[digest].names.remove(key)
            self._bytes -= _NAME_BYTES

    def _remove(self, digest: str) -> _Entry | None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._bytes -= entry.size
            for name in entry.names:
                del self._names[name]
        return entry
