"""Who reads what on the local log: partitions shared out by file locks of one machine."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from urllib.parse import quote

from worker.stream.base import TopicPartition


class FileLock:
    """An advisory lock that the kernel gives back when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def try_acquire(self) -> bool:
        """Take the lock without waiting."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; a lock that is not held stays as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Membership:
    """This process in a group: it holds at most its fair share of partitions.

    A frozen process keeps its locks, so nobody can take over behind its back; a dead one has none.
    """

    def __init__(self, directory: Path, group: str, sources: Sequence[TopicPartition]) -> None:
        self._directory = directory / "groups" / quote(group, safe="")
        self._members = self._directory / "members"
        self._members.mkdir(parents=True, exist_ok=True)
        self._sources = sorted(sources)
        self._locks: dict[TopicPartition, FileLock] = {}
        self._path = self._members / uuid.uuid4().hex
        self._presence = FileLock(self._path)
        self._presence.try_acquire()

    def _alive(self) -> int:
        if not self._path.exists():  # cleared away between being made and being locked
            self._presence.release()
            self._presence.try_acquire()
        alive = 1
        for path in self._members.iterdir():
            if path == self._path:
                continue
            lock = FileLock(path)
            if lock.try_acquire():  # its process is gone
                path.unlink(missing_ok=True)
                lock.release()
            else:
                alive += 1
        return alive

    @property
    def held(self) -> list[TopicPartition]:
        """The partitions this process has."""
        return sorted(self._locks)

    def surplus(self) -> list[TopicPartition]:
        """Partitions above the fair share, to be drained and released."""
        share = ceil(len(self._sources) / self._alive())
        return self.held[share:]

    def acquire(self) -> list[TopicPartition]:
        """Take free partitions up to the fair share."""
        share = ceil(len(self._sources) / self._alive())
        taken = []
        for source in self._sources:
            if len(self._locks) >= share:
                break
            if source in self._locks:
                continue
            name = f"{quote(source.topic, safe='')}-{source.partition}.lock"
            lock = FileLock(self._directory / name)
            if lock.try_acquire():
                self._locks[source] = lock
                taken.append(source)
        return taken

    def release(self, sources: Sequence[TopicPartition]) -> None:
        """Give partitions back after they were drained."""
        for source in sources:
            lock = self._locks.pop(source, None)
            if lock is not None:
                lock.release()

    def leave(self) -> None:
        """Give everything back."""
        self.release(self.held)
        self._path.unlink(missing_ok=True)
        self._presence.release()
