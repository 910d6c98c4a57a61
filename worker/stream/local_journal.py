"""The file of the local log: frames appended under a lock, an index of them in memory."""

from __future__ import annotations

import fcntl
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import FatalError
from worker.stream.base import TopicPartition
from worker.stream.local_frames import (
    PREFIX,
    Commit,
    Head,
    Stored,
    decode_body,
    decode_record,
)

FILE = "journal"
GroupPartition = tuple[str, str, int]


class Journal:
    """All topics, offsets and epochs of one directory, shared by processes of one machine.

    Appending takes an exclusive file lock, reads what others wrote, cuts off what a crash left
    half written, and writes one frame. Readers need no lock: what is not whole is not there yet.

    Durability: a frame survives ``kill -9`` once ``append`` returned, because the kernel has it. A
    power cut may take the last frames, outputs and offsets alike, unless ``fsync`` is on; then
    every append waits for the disk.
    """

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.topics: dict[str, int] = {}
        self.commits: dict[GroupPartition, Commit] = {}
        self.epochs: dict[GroupPartition, int] = {}
        self._fsync = fsync
        self._index: dict[TopicPartition, tuple[array[int], array[int]]] = {}
        self._end = 0
        self._mutex = threading.RLock()
        self._file = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = os.open(directory / f"{FILE}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        self.refresh()

    def close(self) -> None:
        """Give the files back."""
        with self._mutex:
            for name in ("_file", "_lock"):
                descriptor = getattr(self, name)
                if descriptor >= 0:
                    os.close(descriptor)
                    setattr(self, name, -1)

    @property
    def stale(self) -> bool:
        """Whether the file has grown past what is indexed."""
        return os.fstat(self._file).st_size > self._end

    def refresh(self) -> None:
        """Index every whole frame that others appended."""
        with self._mutex:
            while self._read_frame():
                pass

    def append(self, make: Callable[[], bytes]) -> None:
        """Write the frame ``make`` returns; it sees the newest state and may refuse by raising."""
        with self._mutex, self._exclusive():
            self.refresh()
            if self.stale:
                self._cut_torn_tail()
            frame = make()
            written = 0
            while written < len(frame):
                written += os.write(self._file, frame[written:])
            if self._fsync:
                os.fsync(self._file)
            self.refresh()

    def end(self, source: TopicPartition) -> int:
        """The offset the next record of a partition will get."""
        index = self._index.get(source)
        return len(index[0]) if index else 0

    def read(self, source: TopicPartition, offset: int) -> Stored:
        """One record."""
        positions, lengths = self._index[source]
        return decode_record(os.pread(self._file, lengths[offset], positions[offset]))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _read_frame(self) -> bool:
        prefix = os.pread(self._file, PREFIX.size, self._end)
        if len(prefix) < PREFIX.size:
            return False
        length, checksum = PREFIX.unpack(prefix)
        body = os.pread(self._file, length, self._end + PREFIX.size)
        if len(body) < length:
            return False
        decoded = decode_body(body, checksum)
        if decoded is None:
            return False
        head, start = decoded
        self._apply(head, self._end + PREFIX.size + start)
        self._end += PREFIX.size + length
        return True

    def _apply(self, head: Head, position: int) -> None:
        self.topics.update(head.topics)
        for topic, partition, length in head.records:
            source = TopicPartition(topic, partition)
            index = self._index.get(source)
            if index is None:
                index = self._index[source] = (array("Q"), array("L"))
            index[0].append(position)
            index[1].append(length)
            position += length
        for commit in head.commits:
            self.commits[commit.group, commit.topic, commit.partition] = commit
        for epoch in head.epochs:
            self.epochs[epoch.group, epoch.topic, epoch.partition] = epoch.epoch

    def _cut_torn_tail(self) -> None:
        """Remove what a crash left after the last whole frame (the lock is held: nobody writes).

        Raises:
            FatalError: it is a whole frame that fails its checksum, with more behind it. That is
                no torn write but damage, and cutting there would lose what follows.
        """
        size = os.fstat(self._file).st_size
        prefix = os.pread(self._file, PREFIX.size, self._end)
        if len(prefix) == PREFIX.size:
            length, _ = PREFIX.unpack(prefix)
            if length and self._end + PREFIX.size + length < size:
                raise FatalError(
                    f"{self.directory / FILE} is damaged at byte {self._end}: {size - self._end} "
                    "bytes behind it would be lost. Restore the file, or set it aside and start "
                    "with an empty log.directory"
                )
        os.ftruncate(self._file, self._end)
