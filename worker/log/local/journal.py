"""The file of the local log: frames appended under a lock, an index of them in memory.

The bytes of the file::

    file   := MAGIC · salt (8 random bytes) · frame*
    frame  := marker (the salt's first 4 bytes) · length u32 · crc32 of the body u32 ·
              crc32 of salt, position u64, length and body's crc u32 · body       (little-endian)
    body   := head-length u32 · head (MessagePack) · records (MessagePack each, back to back)

One frame is one transaction, whole or not there. The head names topics, lengths and checksums of
the records, committed offsets and owners' epochs. A frame's header vouches for itself and for its
place, so a length that was damaged is never believed, and bytes that a user wrote into an event can
never be taken for a frame. What a crash cut short is the beginning of a frame at the end of the
file; everything else that cannot be read is damage, and nothing is ever cut away for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from worker.errors import DependencyUnavailable, FatalError
from worker.records import Headers, TopicPartition

logger = logging.getLogger(__name__)

MAGIC = b"MODLOG2\n"
"""Begins the file; the digit is the format's version."""
SALT_BYTES = 8
FILE_HEADER = len(MAGIC) + SALT_BYTES
FRAME_HEADER = struct.Struct("<4sIII")
_CHECKED = struct.Struct("<QII")
_HEAD = struct.Struct("<I")
LOCK_S = 10.0
"""Longest wait for the lock: an append takes milliseconds."""
_LOOK_AGAIN_S = 0.005


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
    """What a frame says. ``records``: (topic, partition, length, crc32) in the order of the bytes.

    ``topics``: (name, partitions) of topics created by this frame.
    """

    records: tuple[tuple[str, int, int, int], ...] = ()
    commits: tuple[Commit, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    topics: tuple[tuple[str, int], ...] = ()


_encoder = msgspec.msgpack.Encoder()
_heads = msgspec.msgpack.Decoder(Head)
_records = msgspec.msgpack.Decoder(Stored)


def encode_transaction(
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
                (topic, partition, len(blob), zlib.crc32(blob))
                for (topic, partition, _), blob in zip(records, blobs, strict=True)
            ),
            tuple(commits),
            tuple(epochs),
            tuple(topics),
        )
    )
    return b"".join((_HEAD.pack(len(head)), head, *blobs))


FILE = "journal"
GroupPartition = tuple[str, str, int]


class Journal:
    """All topics, offsets and epochs of one directory, shared by processes of one machine.

    Appending takes an exclusive lock on the file, reads what others wrote, sets aside what a crash
    left half written, and writes one frame. Readers need no lock: what is not whole is not there
    yet.

    Durability: a frame survives ``kill -9`` once ``append`` returned, because the kernel has it. A
    power cut may take the last frames, outputs and offsets alike, unless ``fsync`` is on; then
    every append waits for the disk.

    Raises:
        FatalError: the directory cannot be used, or the file is damaged; the message names the
            file, the byte, and what to do. Nothing was changed.
    """

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self.directory = directory
        self.path = directory / FILE
        self.topics: dict[str, int] = {}
        self.commits: dict[GroupPartition, Commit] = {}
        self.epochs: dict[GroupPartition, int] = {}
        self._fsync = fsync
        self._index: dict[TopicPartition, tuple[array[int], array[int], array[int]]] = {}
        self._salt = b""
        self._end = 0
        self._mutex = threading.RLock()
        self._file = -1
        try:
            with self._explained():
                directory.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                self._open_header()
            self.refresh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        with self._mutex:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    @property
    def stale(self) -> bool:
        """Whether the file has grown, or shrunk, since it was indexed."""
        return os.fstat(self._file).st_size != self._end

    def refresh(self) -> None:
        """Index every whole frame that others appended.

        Raises:
            FatalError: the file is damaged, or shorter than what was already read of it.
        """
        with self._mutex:
            try:
                self._read_frames()
            except FatalError:
                # Without the lock, what is read may have been set aside and written over meanwhile.
                with self._explained(), self._exclusive():
                    self._read_frames()

    def append(self, make: Callable[[], bytes]) -> None:
        """Write the body ``make`` returns; it sees the newest state and may refuse by raising.

        Raises:
            FatalError: the file is damaged, gone, or cannot be written to at all.
            DependencyUnavailable: the disk is full, or another process holds the lock: nothing was
                written, and nobody is to blame.
        """
        with self._mutex, self._explained(), self._exclusive():
            self._read_frames()
            if self.stale:
                self._set_torn_tail_aside()
            self._write(self._framed(make()))
            self._read_frames()

    def end(self, source: TopicPartition) -> int:
        """The offset the next record of a partition will get."""
        index = self._index.get(source)
        return len(index[0]) if index else 0

    def read(self, source: TopicPartition, offset: int) -> Stored:
        """One record.

        Raises:
            FatalError: its bytes are not those that were written.
        """
        positions, lengths, checksums = self._index[source]
        blob = os.pread(self._file, lengths[offset], positions[offset])
        if zlib.crc32(blob) != checksums[offset]:
            raise self._damaged(positions[offset], f"{source.topic}-{source.partition}@{offset}")
        return _records.decode(blob)

    # The file as a whole

    def _open_header(self) -> None:
        header = os.pread(self._file, FILE_HEADER, 0)
        if len(header) < FILE_HEADER:
            with self._exclusive():
                header = os.pread(self._file, FILE_HEADER, 0)
                if len(header) < FILE_HEADER and MAGIC.startswith(header[: len(MAGIC)]):
                    # New, or cut off while it was made: no frame can have been written yet.
                    os.ftruncate(self._file, 0)
                    header = MAGIC + os.urandom(SALT_BYTES)
                    self._write(header)
                    if self._fsync:
                        directory = os.open(self.directory, os.O_RDONLY)
                        try:
                            os.fsync(directory)
                        finally:
                            os.close(directory)
        if not header.startswith(MAGIC):
            raise FatalError(
                f"{self.path} is no journal of this version, or its beginning is damaged. Finish "
                "it with the version that wrote it, restore it, or name another log.directory"
            )
        self._salt = header[len(MAGIC) :]
        self._end = FILE_HEADER

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the operating system refuses, in words that name the directory."""
        try:
            yield
        except OSError as error:
            raise FatalError(
                f"log.directory {self.directory}: {error.strerror or error}. It must be a "
                "directory of this machine that the worker may write to and lock files in"
            ) from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DependencyUnavailable(
                        "log", f"{self.path} is locked by {self._holder()} for {LOCK_S:.0f} s"
                    ) from None
                time.sleep(_LOOK_AGAIN_S)
        try:
            self._require_in_place()
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _require_in_place(self) -> None:
        """Whoever writes into a file that was removed or replaced writes for nobody."""
        try:
            there = self.path.stat().st_ino == os.fstat(self._file).st_ino
        except FileNotFoundError:
            there = False
        if not there:
            raise FatalError(
                f"{self.path} was removed or replaced while it was in use. Put the file back, or "
                "restart on an empty log.directory"
            )

    def _holder(self) -> str:
        """Which process holds the lock, as Linux lists it (proc(5), /proc/locks)."""
        inode = str(os.fstat(self._file).st_ino)
        with contextlib.suppress(OSError):
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
                fields = line.split()
                if "FLOCK" in fields and fields[5].endswith(f":{inode}"):
                    return f"process {fields[4]}"
        return "another process"

    # Frames

    def _write(self, data: bytes) -> None:
        """All of ``data`` at the end of the file, or nothing (the lock is held)."""
        start = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            if self._fsync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, start)
            raise DependencyUnavailable(
                "log", f"{self.path} cannot be written to: {error.strerror or error}"
            ) from error

    def _header_checksum(self, position: int, length: int, checksum: int) -> int:
        return zlib.crc32(self._salt + _CHECKED.pack(position, length, checksum))

    def _framed(self, body: bytes) -> bytes:
        checksum = zlib.crc32(body)
        own = self._header_checksum(self._end, len(body), checksum)
        return FRAME_HEADER.pack(self._salt[:4], len(body), checksum, own) + body

    def _header_at(self, position: int, header: bytes) -> tuple[int, int] | None:
        """Length and checksum of the body; None where this is no header of that position."""
        marker, length, checksum, own = FRAME_HEADER.unpack(header)
        if marker != self._salt[:4] or own != self._header_checksum(position, length, checksum):
            return None
        return length, checksum

    def _read_frames(self) -> None:
        while self._read_frame():
            pass

    def _read_frame(self) -> bool:
        size = os.fstat(self._file).st_size
        if size < self._end:
            raise FatalError(
                f"{self.path} was cut to {size} bytes, of which {self._end} had been read. Restore "
                "the file, or restart on an empty log.directory"
            )
        header = os.pread(self._file, FRAME_HEADER.size, self._end)
        if len(header) < FRAME_HEADER.size:
            return False
        known = self._header_at(self._end, header)
        if known is None:
            raise self._damaged(self._end, "the header of a commit")
        length, checksum = known
        body = os.pread(self._file, length, self._end + FRAME_HEADER.size)
        if len(body) < length:
            return False
        if zlib.crc32(body) != checksum or length < _HEAD.size:
            raise self._damaged(self._end, "a commit")
        (head_length,) = _HEAD.unpack_from(body)
        start = _HEAD.size + head_length
        head = _heads.decode(memoryview(body)[_HEAD.size : start])
        self._apply(head, self._end + FRAME_HEADER.size + start)
        self._end += FRAME_HEADER.size + length
        return True

    def _apply(self, head: Head, position: int) -> None:
        self.topics.update(head.topics)
        for topic, partition, length, checksum in head.records:
            source = TopicPartition(topic, partition)
            index = self._index.get(source)
            if index is None:
                index = self._index[source] = (array("Q"), array("I"), array("I"))
            for column, value in zip(index, (position, length, checksum), strict=True):
                column.append(value)
            position += length
        for commit in head.commits:
            self.commits[commit.group, commit.topic, commit.partition] = commit
        for epoch in head.epochs:
            self.epochs[epoch.group, epoch.topic, epoch.partition] = epoch.epoch

    def _damaged(self, position: int, what: str) -> FatalError:
        size = os.fstat(self._file).st_size
        return FatalError(
            f"{self.path} is damaged at byte {position} ({what}); {size - position} bytes lie "
            "there and behind it, and nothing was changed. Restore the file; or keep a copy of it "
            f"and go on without them: truncate --size={self._end} {self.path}"
        )

    def _set_torn_tail_aside(self) -> None:
        """Move what a crash left after the last whole frame into a file beside the journal.

        The lock is held, so nobody is writing it. What is there is the beginning of one frame.

        Raises:
            FatalError: a whole frame lies in it: then something is missing before that.
        """
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, size - self._end, self._end)
        place = tail.find(self._salt[:4], 1)
        while 0 <= place <= len(tail) - FRAME_HEADER.size:
            header = tail[place : place + FRAME_HEADER.size]
            # Bytes are missing before it, so it lies before its place: any place may be its own.
            _, length, checksum, _ = FRAME_HEADER.unpack(header)
            start = place + FRAME_HEADER.size
            if len(tail) - start >= length and zlib.crc32(tail[start : start + length]) == checksum:
                raise self._damaged(self._end, "bytes are missing in a commit")
            place = tail.find(self._salt[:4], place + 1)
        aside = self.directory / f"{FILE}.torn-{self._end}-{time.time_ns()}"
        aside.touch(mode=0o600)
        aside.write_bytes(tail)
        logger.warning(
            "the log ended in %d bytes of a commit that was never finished; they are kept in %s",
            len(tail),
            aside.name,
        )
        os.ftruncate(self._file, self._end)
