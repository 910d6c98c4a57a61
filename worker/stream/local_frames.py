"""The bytes of the local log: one frame is one transaction, whole or not there.

    frame := length u32 · crc32 u32 · body            (little-endian; length and crc are the body's)
    body  := head-length u32 · head (MessagePack) · records (MessagePack each, back to back)

The head names topics and lengths of the records, committed offsets and owners' epochs. A frame
that a crash cut short fails its length or its checksum, so none of it counts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

from worker.stream.base import Headers

PREFIX = struct.Struct("<II")
_HEAD = struct.Struct("<I")


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A record as it lies in the log. ``timestamp`` is milliseconds since the epoch."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """A group's next offset in one partition, with its mark's attempts and end."""

    group: str
    topic: str
    partition: int
    next_offset: int
    attempts: int = 0
    until: int = 0


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
