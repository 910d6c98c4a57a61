"""Record batches as they come from a broker, whatever is in them: nothing ends the process.

aiokafka raises out of a fetch where it cannot parse something: a header name that is not UTF-8, a
codec that is missing, a checksum, a count that is wrong. The partition then stands still for good,
and what was drained of other partitions with it is gone. And it unpacks a compressed batch whole,
however large that is. ``install`` puts this module's reading in the place of aiokafka's: what
cannot be parsed comes out as a message that says so, offset by offset, and all else as ever.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.record import default_records
from aiokafka.record.memory_records import MemoryRecords

CRC_TRIES = 3
"""Fetches of a batch whose checksum is wrong before the batch is blamed, and not the way here."""
MAX_NAME = 64
"""Characters of a header name that are told."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_FRAME = struct.Struct(">qi")
_XERIAL = b"\x82SNAPPY\x00"
_MAGIC_AT = 16
_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class Unreadable(NamedTuple):
    """A message that could not be parsed, in the place of aiokafka's ``ConsumerRecord``."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    unreadable: str


class BatchTooLarge(Exception):
    """More comes out of a compressed batch than may; ``start`` is what came out so far."""

    def __init__(self, limit: int, start: bytes) -> None:
        super().__init__(f"unpacks to more than {limit} bytes (stream.max_bytes)")
        self.start = start


class _Broken(Exception):
    """The rest of a batch cannot be parsed; the message says why."""


class _Limit:
    bytes = 64 * 1024 * 1024


# Decoders that stop at the limit, so that memory stays bounded whatever a batch holds.


def gzip_decode(payload: Any) -> bytes:
    """See ``aiokafka.codec.gzip_decode``.

    Raises:
        BatchTooLarge: ``stream.max_bytes`` are not enough.
    """
    out, left = bytearray(), bytes(payload)
    while left:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            room = _Limit.bytes + 1 - len(out)
            piece = decoder.decompress(left, room)
            left = decoder.unconsumed_tail
            out += piece
            if len(out) > _Limit.bytes:
                raise BatchTooLarge(_Limit.bytes, bytes(out[: _Limit.bytes]))
            if not piece and not left and not decoder.eof:
                raise EOFError("the compressed data ends too early")
        left = decoder.unused_data
    return bytes(out)


def _decode_into(into: Callable[[Any, bytearray], int], payload: bytes) -> bytes:
    size = min(_Limit.bytes, max(64 * 1024, 8 * len(payload)))
    while True:
        buffer = bytearray(size)
        try:
            return bytes(memoryview(buffer)[: into(payload, buffer)])
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if size >= _Limit.bytes:
                raise BatchTooLarge(_Limit.bytes, bytes(buffer)) from None
            size = min(_Limit.bytes, 4 * size)


def lz4_decode(payload: Any) -> bytes:
    """See ``aiokafka.codec.lz4_decode``; bounded."""
    return _decode_into(cramjam.lz4.decompress_into, bytes(payload))


def zstd_decode(payload: Any) -> bytes:
    """See ``aiokafka.codec.zstd_decode``; bounded."""
    return _decode_into(cramjam.zstd.decompress_into, bytes(payload))


def snappy_decode(payload: Any) -> bytes:
    """See ``aiokafka.codec.snappy_decode``; bounded."""
    data = memoryview(bytes(payload))
    if bytes(data[:8]) != _XERIAL:
        return _snappy_block(data, b"")
    out, at = bytearray(), 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        out += _snappy_block(data[at + 4 : at + 4 + size], bytes(out))
        at += 4 + size
    return bytes(out)


def _snappy_block(block: memoryview, before: bytes) -> bytes:
    if cramjam.snappy.decompress_raw_len(block) + len(before) > _Limit.bytes:
        raise BatchTooLarge(_Limit.bytes, before)
    return bytes(cramjam.snappy.decompress_raw(block))


_DECODERS = {
    "gzip_decode": gzip_decode,
    "snappy_decode": snappy_decode,
    "lz4_decode": lz4_decode,
    "zstd_decode": zstd_decode,
}


def install(limit_bytes: int) -> None:
    """Read batches here from now on, and unpack none of them to more than ``limit_bytes``.

    Held by tests/log/test_kafka_batches.py: an aiokafka that looks these up elsewhere fails it.
    """
    _Limit.bytes = limit_bytes
    modules = [default_records]
    if default_records.DefaultRecordBatch.__module__ != default_records.__name__:
        modules.append(import_module(default_records.DefaultRecordBatch.__module__))
    for module in modules:
        vars(module).update(_DECODERS)
    vars(fetcher)["MemoryRecords"] = _FetchedBytes
    vars(fetcher)["PartitionRecords"] = TolerantRecords


class _FetchedBytes:
    """The bytes a fetch brought for one partition; parsed later, where faults are caught."""

    def __init__(self, data: bytes) -> None:
        self.data = bytes(data or b"")

    def has_next(self) -> bool:
        return bool(self.data)

    def size_in_bytes(self) -> int:
        return len(self.data)


_crc_failures: OrderedDict[tuple[Any, int], int] = OrderedDict()


def _blame(source: Any, offset: int) -> bool:
    """Whether a batch at ``offset`` was fetched often enough to be taken for broken itself."""
    count = _crc_failures.pop((source, offset), 0) + 1
    _crc_failures[source, offset] = count
    while len(_crc_failures) > 1000:
        _crc_failures.popitem(last=False)
    return count >= CRC_TRIES


class TolerantRecords:
    """See aiokafka's ``PartitionRecords``; an iterator over messages that never raises.

    ``next_fetch_offset`` is where the next fetch goes on.
    """

    def __init__(
        self,
        tp: Any,
        records: _FetchedBytes,
        aborted_transactions: Any,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation_level: int,
    ) -> None:
        self._source = tp
        self._data = records.data
        self._aborted = sorted(aborted_transactions or [], key=lambda entry: entry[1])
        self._aborted_producers: set[int] = set()
        self._committed_only = isolation_level == fetcher.READ_COMMITTED
        self.next_fetch_offset = fetch_offset
        self._messages = self._read()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._messages)

    def _read(self) -> Iterator[Any]:
        slices = list(_slices(self._data))
        if not slices:  # not even a header: its length is broken
            yield from self._broken(None, "the batch's length is wrong")
            return
        for index, raw in enumerate(slices):
            batch = _batch(raw)
            if batch is None:
                following = _batch(slices[index + 1]) if index + 1 < len(slices) else None
                why = "the batch's checksum is wrong"
                if not _blame(self._source, self.next_fetch_offset):
                    return  # fetched again: it may have been damaged on its way
                yield from self._broken(following and following.base_offset, why)
                if following is None:
                    return
                continue
            if batch.next_offset <= self.next_fetch_offset or self._skipped(batch):
                self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
                continue
            yield from self._messages_of(batch, raw)
            self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)

    def _skipped(self, batch: Any) -> bool:
        """Whether a batch holds nothing for us: markers, and what was aborted."""
        if self._committed_only and batch.producer_id is not None:
            while self._aborted and self._aborted[0][1] <= batch.base_offset:
                self._aborted_producers.add(self._aborted.pop(0)[0])
            if batch.is_control_batch:
                # Transactions of a producer follow one another: its next marker ends this one.
                self._aborted_producers.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)

    def _broken(self, end: int | None, why: str) -> Iterator[Unreadable]:
        """Offsets up to ``end``, or one where nobody knows how far the batch goes."""
        until = self.next_fetch_offset + 1 if end is None else end
        while self.next_fetch_offset < until:
            offset = self.next_fetch_offset
            self.next_fetch_offset = offset + 1
            yield self._unreadable(offset, why)

    def _unreadable(self, offset: int, why: str, **known: Any) -> Unreadable:
        parts = {"timestamp": -1, "key": None, "value": None, "headers": (), **known}
        return Unreadable(
            topic=self._source.topic,
            partition=self._source.partition,
            offset=offset,
            unreadable=why,
            **parts,
        )

    def _messages_of(self, batch: Any, raw: memoryview) -> Iterator[Any]:
        try:
            for record in batch:
                if record.offset < self.next_fetch_offset:
                    continue
                self.next_fetch_offset = record.offset + 1
                yield self._message(record)
        except Exception as error:
            if raw[_MAGIC_AT] < 2:
                yield from self._broken(batch.next_offset, f"old format: {_kind(error)}")
                return
        else:
            return
        yield from self._piecewise(batch, raw)

    def _message(self, record: Any) -> Any:
        key, value = record.key, record.value
        return fetcher.ConsumerRecord(
            self._source.topic,
            self._source.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            key,
            value,
            record.checksum,
            -1 if key is None else len(key),
            -1 if value is None else len(value),
            tuple(record.headers),
        )

    def _piecewise(self, batch: Any, raw: memoryview) -> Iterator[Any]:
        """Every record of a batch that can be read, and the others for what they are."""
        fields = _HEADER.unpack_from(raw)
        attributes, count = fields[5], fields[12]
        why = ""
        try:
            body, why = _unpacked(attributes & 0x07, raw[_HEADER.size :])
            for parsed in _records(body, count):
                offset = batch.base_offset + parsed.offset_delta
                if offset < self.next_fetch_offset or offset >= batch.next_offset:
                    continue
                timestamp = fields[8] if attributes & 0x08 else fields[7] + parsed.timestamp_delta
                # Offsets may have gaps (compaction), and gaps are no records.
                self.next_fetch_offset = offset + 1
                yield (
                    self._unreadable(
                        offset,
                        parsed.why,
                        timestamp=timestamp,
                        key=parsed.key,
                        value=parsed.value,
                        headers=parsed.headers,
                    )
                    if parsed.why
                    else fetcher.ConsumerRecord(
                        self._source.topic,
                        self._source.partition,
                        offset,
                        timestamp,
                        int(bool(attributes & 0x08)),
                        parsed.key,
                        parsed.value,
                        None,
                        -1 if parsed.key is None else len(parsed.key),
                        -1 if parsed.value is None else len(parsed.value),
                        parsed.headers,
                    )
                )
        except _Broken as error:
            yield from self._broken(batch.next_offset, f"the batch {why or error}")


def _slices(data: bytes) -> Iterator[memoryview]:
    """Whole batches one after the other; a last one that was cut off is left out."""
    view, at = memoryview(data), 0
    while at + _FRAME.size <= len(view):
        _, length = _FRAME.unpack_from(view, at)
        end = at + _FRAME.size + length
        if length <= 0 or end > len(view):
            return
        yield view[at:end]
        at = end


def _batch(raw: memoryview) -> Any:
    """aiokafka's view of one batch; None where the batch is not whole and sound."""
    try:
        batch = MemoryRecords(bytes(raw)).next_batch()
        return batch if batch is not None and batch.validate_crc() else None
    except Exception:
        return None


def _unpacked(codec: int, body: memoryview) -> tuple[bytes, str]:
    """The records' bytes, or as many of them as may be held, and then why not all.

    Raises:
        _Broken: nothing can be unpacked.
    """
    if codec == 0:
        return bytes(body), ""
    name = _CODECS.get(codec)
    if name is None:
        raise _Broken(f"is packed with an unknown codec ({codec})")
    try:
        return _DECODERS[f"{name}_decode"](body), ""
    except BatchTooLarge as error:
        return error.start, str(error)
    except Exception as error:
        raise _Broken(f"cannot be unpacked ({name}: {_kind(error)})") from None


class _Parsed(NamedTuple):
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    why: str


def _records(body: bytes, count: int) -> Iterator[_Parsed]:
    at, expected = 0, 0
    for _ in range(count):
        try:
            length, start = _varint(body, at)
        except IndexError:
            raise _Broken("ends too early") from None
        end = start + length
        if length <= 0 or end > len(body):
            raise _Broken("holds a record whose length is wrong")
        parsed = _record(body[start:end], expected)
        yield parsed
        at, expected = end, parsed.offset_delta + 1
    if at != len(body):
        raise _Broken("holds more than it says")


def _record(data: bytes, expected: int) -> _Parsed:
    at, timestamp, offset = 1, 0, expected
    try:
        timestamp, at = _varint(data, at)
        offset, at = _varint(data, at)
        if offset < expected:
            raise ValueError
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = _varint(data, at)
        if count < 0:
            raise ValueError
        headers = []
        why = ""
        for _ in range(count):
            name, at = _bytes(data, at)
            content, at = _bytes(data, at)
            if name is None:
                raise ValueError
            try:
                headers.append((name.decode("utf-8"), content))
            except UnicodeDecodeError:
                text = name.decode("utf-8", "backslashreplace")
                headers.append((text, content))
                why = why or f"a header's name is not UTF-8: {text[:MAX_NAME]}"
        if at != len(data):
            raise ValueError
    except (IndexError, ValueError):
        offset = max(offset, expected)
        return _Parsed(timestamp, offset, None, data, (), "the record's structure is broken")
    return _Parsed(timestamp, offset, key, value, tuple(headers), why)


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length < 0:
        return None, at
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
        if shift > 63:
            raise ValueError


def _kind(error: BaseException) -> str:
    return type(error).__name__
