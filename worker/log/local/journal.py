"""The file of the local log: frames appended under a lock, an index of them in memory."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from worker.errors import FatalError
from worker.records import Headers, TopicPartition

# The bytes of the local log: one frame is one transaction, whole or not there.
#
#     frame := length u32 · crc32 u32 · body            (little-endian; length and crc are the
#     body's)
#     body  := head-length u32 · head (MessagePack) · records (MessagePack each, back to back)
#
# The head names topics and lengths of the records, committed offsets and owners' epochs. A frame
# that a crash cut short fails its length or its checksum, so none of it counts.

PREFIX = struct.Struct("<II")
_HEAD = struct.Struct("<I")


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A record as it lies in the log. ``timestamp`` is milliseconds since the epoch."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """A group's next offset in one partition, with the metadata beside it as text.

    ``attempts`` and ``until`` are what versions before ``metadata`` wrote.
    """

    group: str
    topic: str
    partition: int
    next_offset: int
    attempts: int = 0
    until: int = 0
    metadata: str = ""


class Epoch(msgspec.Struct, frozen=True, array_like=True):
    """A new owner of a group's partition; commits of older epochs are refused."""

    group: str
    topic: str
    partition: int
    epoch: int


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a frame says. ``records``: (topic, partition, length) in the order of their bytes.

    ``topics``: (name, partitions) of topics created by this frame.
    """

    records: tuple[tuple[str, int, int], ...] = ()
    commits: tuple[Commit, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    topics: tuple[tuple[str, int], ...] = ()


_encoder = msgspec.msgpack.Encoder()
_heads = msgspec.msgpack.Decoder(Head)
_records = msgspec.msgpack.Decoder(Stored)


def encode_frame(
    records: Sequence[tuple[str, int, Stored]] = (),
    commits: Sequence[Commit] = (),
    epochs: Sequence[Epoch] = (),
    topics: Sequence[tuple[str, int]] = (),
) -> bytes:
    """One transaction as bytes; ``records`` are (topic, partition, record)."""
    blobs = [_encoder.encode(stored) for _, _, stored in records]
    head = _encoder.encode(
        Head(
            tuple(
                (topic, partition, len(blob))
                for (topic, partition, _), blob in zip(records, blobs, strict=True)
            ),
            tuple(commits),
            tuple(epochs),
            tuple(topics),
        )
    )
    body = b"".join((_HEAD.pack(len(head)), head, *blobs))
    return PREFIX.pack(len(body), zlib.crc32(body)) + body


def decode_body(body: bytes, checksum: int) -> tuple[Head, int] | None:
    """The head and where its records begin in ``body``; None where the checksum fails."""
    if zlib.crc32(body) != checksum or len(body) < _HEAD.size:
        return None
    (length,) = _HEAD.unpack_from(body)
    start = _HEAD.size + length
    return _heads.decode(memoryview(body)[_HEAD.size : start]), start


def decode_record(blob: bytes) -> Stored:
    """A record's own bytes, which the frame's checksum has already vouched for."""
    return _records.decode(blob)


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
