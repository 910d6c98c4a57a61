"""Whatever lies in a batch: what can be read is judged, and the rest is passed on by reference."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import aiokafka
import cramjam
import pytest
from aiokafka.consumer import fetcher
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record import default_records
from aiokafka.record.util import calc_crc32c

from tests.log.conformance import poll_until, started
from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create, write
from worker.log.kafka import batches
from worker.log.kafka.batches import CRC_TRIES, TolerantRecords, install
from worker.log.kafka.log import record_of
from worker.records import Output, Record

SOURCE = aiokafka.TopicPartition("t", 0)
LIMIT = 4 * 1024 * 1024
CODECS: dict[int, Callable[[bytes], bytes]] = {
    1: gzip.compress,
    2: lambda data: bytes(cramjam.snappy.compress_raw(data)),
    3: lambda data: bytes(cramjam.lz4.compress(data)),
    4: lambda data: bytes(cramjam.zstd.compress(data)),
}


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    install(LIMIT)
    batches._crc_failures.clear()
    yield
    install(64 * 1024 * 1024)


def varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number & ~0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(delta: int, value: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    body = b"\0" + varint(0) + varint(delta) + sized(b"key") + sized(value) + varint(len(headers))
    body += b"".join(sized(name) + sized(content) for name, content in headers)
    return varint(len(body)) + body


def batch(
    base: int, *records: bytes, codec: int = 0, count: int | None = None, control: bool = False
) -> bytes:
    """A batch of format 2 as a broker stores it."""
    body = b"".join(records)
    packed = CODECS[codec](body) if codec in CODECS else body
    attributes = codec | (0x20 if control else 0)
    number = len(records) if count is None else count
    tail = struct.pack(
        ">hiqqqhii", attributes, max(0, number - 1), 1000, 1000, -1, -1, -1, number
    ) + packed  # fmt: skip
    head = struct.pack(">iBI", 0, 2, calc_crc32c(tail))
    return struct.pack(">qi", base, len(head) + len(tail)) + head + tail


def broken(raw: bytes) -> bytes:
    """The same batch with a bit flipped behind its checksum."""
    return raw[:-1] + bytes((raw[-1] ^ 1,))


def read(data: bytes, offset: int = 0, fetches: int = CRC_TRIES) -> list[Record]:
    """What comes out of fetching ``data`` until nothing new comes."""
    found: list[Record] = []
    for _ in range(fetches):
        records: Any = TolerantRecords(
            SOURCE, fetcher.MemoryRecords(data), None, offset, None, None, True, 1
        )
        found += [record_of(message) for message in records]
        offset = records.next_fetch_offset
    return found


def told(records: list[Record]) -> list[tuple[int, bytes | None, str]]:
    return [(one.offset, one.value, one.unreadable) for one in records]


def test_aiokafka_looks_its_parser_and_decoders_up_where_they_are_replaced() -> None:
    """The seam: a new version of the client that moves them must fail here."""
    assert vars(fetcher)["PartitionRecords"] is TolerantRecords
    module = __import__(
        default_records.DefaultRecordBatch.__module__, fromlist=["DefaultRecordBatch"]
    )
    for name in ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"):
        assert vars(module)[name] is getattr(batches, name)
    for codec in CODECS:
        bomb = batch(0, record(0, bytes(LIMIT)), codec=codec)
        with pytest.raises(batches.BatchTooLarge):
            list(default_records.DefaultRecordBatch(bomb))


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_sound_batches_read_as_ever(codec: int) -> None:
    """In every codec, whole and from their middle."""
    data = batch(5, *(record(at, b"v%d" % at, (b"h", b"x")) for at in range(3)), codec=codec)
    assert told(read(data, 5)) == [(5, b"v0", ""), (6, b"v1", ""), (7, b"v2", "")]
    assert told(read(data, 7)) == [(7, b"v2", "")]
    assert read(data, 5)[0].headers == (("h", b"x"),)


@pytest.mark.parametrize("codec", [0, 1])
def test_a_header_name_that_is_not_utf8_costs_its_own_record_only(codec: int) -> None:
    """Its neighbours in the batch are judged; the name is told, escaped."""
    name = bytes.fromhex("6bf67066fffe5a")
    data = batch(0, record(0, b"a"), record(1, b"b", (name, b"x")), record(2, b"c"), codec=codec)
    first, bad, last = read(data)
    assert (first.value, first.unreadable, last.value, last.unreadable) == (b"a", "", b"c", "")
    assert (bad.key, bad.value) == (b"key", b"b")
    assert bad.unreadable == r"a header's name is not UTF-8: k\xf6pf\xff\xfeZ"


def test_a_record_whose_structure_is_broken_costs_its_own_record_only() -> None:
    """Its length says where the next one begins."""
    wrong = varint(7) + b"\0" + varint(0) + varint(1) + varint(99) + b"zz"
    found = read(batch(0, record(0, b"a"), wrong, record(2, b"c")))
    assert [(one.offset, bool(one.unreadable)) for one in found] == [
        (0, False), (1, True), (2, False)
    ]  # fmt: skip


def test_a_batch_of_an_unknown_codec_is_passed_offset_by_offset() -> None:
    """And what lies behind it is judged."""
    data = batch(0, record(0, b"a"), record(1, b"b"), codec=5) + batch(2, record(0, b"c"))
    assert told(read(data)) == [
        (0, None, "the batch is packed with an unknown codec (5)"),
        (1, None, "the batch is packed with an unknown codec (5)"),
        (2, b"c", ""),
    ]


def test_a_checksum_is_fetched_again_before_the_batch_is_blamed() -> None:
    """What was damaged on its way here comes whole the next time."""
    good = batch(0, record(0, b"a"), record(1, b"b"))
    assert read(broken(good), fetches=CRC_TRIES - 1) == []
    assert told(read(good)) == [(0, b"a", ""), (1, b"b", "")]


def test_the_end_of_a_broken_batch_comes_from_the_next_one() -> None:
    """Its own header may be what is broken."""
    bad = broken(batch(0, record(0, b"a"), count=900))
    found = read(bad + batch(3, record(0, b"c")))
    assert told(found) == [(at, None, "the batch's checksum is wrong") for at in range(3)] + [
        (3, b"c", "")
    ]


def test_a_broken_batch_that_nothing_follows_is_passed_one_offset_at_a_time() -> None:
    """The broker answers with the same batch for as long as an offset lies in it."""
    bad = broken(batch(7, record(0, b"a"), record(1, b"b")))
    assert [one.offset for one in read(bad, 7)] == [7]
    assert [one.offset for one in read(bad, 8)] == [8]


def test_a_length_that_is_wrong_ends_nothing() -> None:
    """Not even a header can be made out."""
    data = struct.pack(">qi", 0, 10**9) + bytes(60)
    assert [(one.offset, one.unreadable) for one in read(data, fetches=1)] == [
        (0, "the batch's length is wrong")
    ]


def test_a_control_batch_out_of_place_is_skipped() -> None:
    """Markers are no records, whatever is in them."""
    data = batch(0, record(0, b"??"), control=True) + batch(1, record(0, b"a"))
    assert told(read(data)) == [(1, b"a", "")]


@pytest.mark.parametrize("codec", [1, 3, 4])
def test_a_bomb_never_takes_more_memory_than_the_setting(codec: int) -> None:
    """400 MB in less than 2 MB: what fits is judged, the rest is passed by reference."""
    data = batch(
        0, record(0, b"small"), record(1, bytes(400_000_000)), record(2, b"c"), codec=codec
    )
    assert len(data) < 2_000_000
    tracemalloc.start()
    found = read(data, fetches=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * LIMIT
    assert [(one.offset, one.value) for one in found] == [(0, b"small"), (1, None), (2, None)]
    assert all("stream.max_bytes" in one.unreadable for one in found[1:])


def test_a_large_batch_of_small_records_is_judged() -> None:
    """As many of its records as unpack within the limit."""
    count = 10_000
    data = batch(0, *(record(at, b"x" * 100) for at in range(count)), codec=1)
    assert [one.unreadable for one in read(data, fetches=1)] == [""] * count


@pytest.mark.kafka
async def test_a_header_name_of_a_producer_in_another_language_stops_nothing(
    kafka: Cluster,
) -> None:
    """The broker takes it; its neighbours, in its batch and on another partition, are read."""
    backend = KafkaBackend(kafka)
    await create(backend, partitions=2)
    bad_name = bytes.fromhex("6bf67066fffe5a")
    await produce_raw(
        kafka,
        backend.topic,
        batch(0, record(0, b"a"), record(1, b"b", (bad_name, b"x")), record(2, b"c")),
    )
    good = [Output(topic=backend.topic, key=b"%d" % n, value=b"good") for n in range(20)]
    await write(backend, good)
    log, _ = await started(backend)
    try:
        records = await poll_until(log, lambda got: len(got) >= 23)
    finally:
        await log.stop()
    assert [(one.key, one.value) for one in records if one.unreadable] == [(b"key", b"b")]
    assert sorted(one.value or b"" for one in records if not one.unreadable) == [
        b"a", b"c", *[b"good"] * 20
    ]  # fmt: skip


async def produce_raw(cluster: Cluster, topic: str, *raw: bytes, partition: int = 0) -> None:
    """Write batches as they are; aiokafka's producer would refuse to make them."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers)
    await producer.start()
    try:
        await producer.partitions_for(topic)
        leader = producer.client.cluster.leader_for_partition(
            aiokafka.TopicPartition(topic, partition)
        )
        for each in raw:
            request = ProduceRequest(None, -1, 10_000, [(topic, [(partition, each)])])
            response = await producer.client.send(leader, request)
            assert response.topics[0][1][0][1] == 0, response
    finally:
        await producer.stop()
