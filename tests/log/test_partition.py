"""What may be published, in which order, and what a crash at any moment finds."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.log.base import Assignment, OffsetMetadata
from worker.log.metadata import MAX_BYTES, decode_metadata, encode_metadata
from worker.log.partition import MAX_SPAN, InFlight, PartitionState
from worker.log.runner import POLL_RECORDS
from worker.records import Output, Record, TopicPartition

SOURCE = TopicPartition("t", 0)
DONE: Sequence[Output] = (Output(topic="t", key=None, value=b"v"),)


def state(
    next_offset: int = 0, metadata: OffsetMetadata | None = None, order: str = "key", **more: object
) -> PartitionState:
    assignment = Assignment(
        source=SOURCE,
        generation=1,
        next_offset=next_offset,
        metadata=metadata or OffsetMetadata(),
        **more,  # type: ignore[arg-type]
    )
    return PartitionState(assignment, incarnation="me", order=order)  # type: ignore[arg-type]


def admit(to: PartitionState, offset: int, key: bytes | None = b"k", size: int = 1) -> InFlight:
    record = Record(topic="t", partition=0, offset=offset, timestamp=0, key=key, value=b"")
    one = InFlight(record, to, size)
    to.unfinished.add(one)
    return one


def offsets(of: PartitionState, max_events: int = 100, max_bytes: int = 10_000) -> list[int]:
    found = of.take(max_events, max_bytes)
    return [] if found is None else [record.offset for record in found.records]


@given(st.integers(0, 2**32), st.sampled_from(["key", "partition"]), st.booleans())
@settings(deadline=None)
def test_a_crash_at_any_commit_repeats_nothing_and_loses_nothing(
    seed: int, order: str, gaps: bool
) -> None:
    """Workers follow one another, each from the text that the last one committed."""
    dice = random.Random(seed)
    present = [offset for offset in range(60) if not (gaps and dice.random() < 0.3)]
    keys = {offset: b"%d" % dice.randrange(4) for offset in present}
    conversations = {offset: b"c%d" % dice.randrange(3) for offset in present}
    published: list[int] = []
    committed, text = 0, ""
    while committed < 60 and len(published) < len(present):
        metadata = decode_metadata(text, committed).metadata
        one = state(committed, metadata, order)
        waiting = [offset for offset in present if offset >= committed]
        flying: list[InFlight] = []
        for _ in range(dice.randrange(40)):
            if waiting and dice.random() < 0.5:
                offset = waiting.pop(0)
                if not one.unfinished.skips(offset):
                    flying.append(admit(one, offset, keys[offset]))
            elif flying:
                record = dice.choice(flying)
                if dice.random() < 0.5:
                    record.identify(conversations[record.offset])
                else:
                    record.conversation = conversations[record.offset]
                    record.identified = True
                    record.outputs = DONE
            found = one.take(dice.randint(1, 5), 100) if dice.random() < 0.4 else None
            if found is not None:
                published += [record.offset for record in found.records]
                committed = found.next_offset
                text = encode_metadata(
                    msgspec.structs.replace(one.metadata(committed), finished=found.finished),
                    committed,
                )
                one.unfinished.remove(found.records)
                flying = [record for record in flying if record not in found.records]
    assert sorted(published) == present[: len(published)] if order == "partition" else True
    assert len(set(published)) == len(published), "something is published twice"
    assert set(range(committed)) & set(present) <= set(published), "something is lost"
    for groups in (keys, conversations):
        for group in set(groups.values()):
            mine = [offset for offset in published if groups[offset] == group]
            assert mine == sorted(mine), "a conversation is out of order"


def test_a_slow_record_holds_up_its_own_key_only() -> None:
    """Its neighbours are published at once, and a later one of its key is not."""
    one = state()
    slow, other, same = admit(one, 0, b"a"), admit(one, 1, b"b"), admit(one, 2, b"a")
    slow.identify(b"c1")
    other.outputs = same.outputs = DONE
    assert offsets(one) == [1]
    found = one.take(10, 100)
    assert found is not None
    assert (found.next_offset, found.finished) == (0, ((1, 2),))


def test_one_conversation_under_two_keys_keeps_its_order() -> None:
    """A record waits for earlier ones of its conversation, whatever their keys are."""
    one = state()
    first, second = admit(one, 0, b"a"), admit(one, 1, b"b")
    first.identify(b"same")
    second.identify(b"same")
    second.outputs = DONE
    assert offsets(one) == []


def test_nothing_passes_a_record_whose_conversation_is_not_known() -> None:
    """It may turn out to be anybody's."""
    one = state()
    unknown, later = admit(one, 0, b"a"), admit(one, 1, b"b")
    later.identify(b"c")
    later.outputs = DONE
    assert offsets(one) == []
    unknown.identify(b"d")
    assert offsets(one) == [1]


def test_records_without_a_key_keep_the_order_of_their_partition() -> None:
    """No key is one key too."""
    one = state()
    first, second = admit(one, 0, None), admit(one, 1, None)
    first.identify(b"c1")
    second.identify(b"c2")
    second.outputs = DONE
    assert offsets(one) == []


def test_order_by_partition_publishes_the_contiguous_prefix_and_writes_no_map() -> None:
    """The promise of versions before, for those who need it; they can read what it leaves."""
    one = state(order="partition")
    records = [admit(one, offset, b"%d" % offset) for offset in range(4)]
    for record in records:
        record.identify(record.delivery.record.key)
    for at in (0, 1, 3):
        records[at].outputs = DONE
    found = one.take(10, 100)
    assert found is not None
    assert [record.offset for record in found.records] == [0, 1]
    assert (found.next_offset, found.finished) == (2, ())


def test_order_by_partition_keeps_a_map_that_it_finds_until_it_is_passed() -> None:
    """Switching back repeats nothing that was published out of order."""
    one = state(0, OffsetMetadata(finished=((2, 4),)), order="partition")
    first = admit(one, 0)
    first.outputs = DONE
    found = one.take(10, 100)
    assert found is not None
    assert (found.next_offset, found.finished) == (1, ((2, 4),))


def test_a_transaction_is_bounded_in_records_and_bytes() -> None:
    """But for a single record that is larger than the bound."""
    one = state()
    for offset in range(6):
        admit(one, offset, size=40).outputs = DONE
    assert offsets(one, max_events=4) == [0, 1, 2, 3]
    assert offsets(one, max_bytes=100) == [0, 1]
    assert offsets(one, max_bytes=10) == [0]


def test_a_map_never_outgrows_its_room() -> None:
    """What would not fit beside the offset waits: a broker refuses one byte more."""
    dice = random.Random(5)
    one = state()
    records = [
        admit(one, offset, b"%d" % offset) for offset in range(0, MAX_SPAN + POLL_RECORDS, 2)
    ]
    for record in records:
        record.identify(record.delivery.record.key)
    todo = records[1:]
    dice.shuffle(todo)
    for record in todo:
        record.outputs = DONE
    taken = 0
    while (found := one.take(2000, 10**9)) is not None:
        metadata = msgspec.structs.replace(
            one.metadata(found.next_offset), finished=found.finished, worker="f" * 12
        )
        text = encode_metadata(metadata, found.next_offset, sequence=2**40, stamp="f" * 12)
        assert len(text) <= MAX_BYTES
        one.unfinished.remove(found.records)
        taken += len(found.records)
    assert taken == len(todo), "within the span there is always room"
    records[0].outputs = DONE
    assert offsets(one)[0] == 0


def test_input_that_goes_backwards_is_refused() -> None:
    """An offset at or before the newest one means that a position was lost."""
    one = state()
    admit(one, 5)
    for offset in (5, 4):
        with pytest.raises(ValueError, match="backwards"):
            admit(one, offset)


def test_one_s_own_ends_count_for_nothing() -> None:
    """A log that was opened anew in this process has lost no worker."""
    mark = OffsetMetadata(worker="me", started=30, attempts=1, until=20)
    one = state(10, mark, end=100)
    assert (one.attempts, one.isolating) == (1, False)


def test_a_worker_that_ended_without_a_word_is_counted_once() -> None:
    """Its records in flight are the suspects, once enough workers ended so."""
    mark = OffsetMetadata(worker="other", started=30)
    first = state(10, mark, end=100)
    assert (first.attempts, first.until, first.isolating) == (1, 30, False)
    again = state(10, msgspec.structs.replace(mark, attempts=1, until=30), end=25)
    assert (again.attempts, again.isolating, again.until) == (2, True, 25)


def test_only_what_was_in_flight_at_both_ends_is_isolated() -> None:
    """Workers that are ended from outside again and again bring nobody under suspicion whose
    neighbours of the last time are done."""
    mark = OffsetMetadata(worker="other", started=50, attempts=1, until=30)
    assert (state(10, mark, end=100).attempts, state(10, mark, end=100).until) == (2, 30)
    done = state(30, mark, end=100)
    assert (done.attempts, done.until, done.isolating) == (1, 50, False)


def test_an_end_between_the_tries_widens_the_search() -> None:
    """It may have been one of those that run in between."""
    mark = OffsetMetadata(worker="other", started=50, attempts=2, until=30)
    assert (state(10, mark, end=100).attempts, state(10, mark, end=100).until) == (3, 50)


def test_an_end_that_another_partition_explains_is_not_counted() -> None:
    """Nothing was in flight here when a suspect elsewhere was alone."""
    mark = OffsetMetadata(worker="other", started=30, attempts=1, until=30)
    one = state(10, mark, end=100, explained=frozenset({"other"}))
    assert one.attempts == 1


def test_an_end_while_a_suspect_was_alone_is_held_against_it() -> None:
    """And against nothing else: the count of its partition stays."""
    mark = OffsetMetadata(worker="other", started=40, attempts=2, until=30, tried=12, alone=1)
    one = state(10, mark, end=100)
    assert (one.attempts, one.tried, one.alone, one.explained) == (2, 12, 2, "other")


def test_an_orderly_end_leaves_the_count_as_it_was() -> None:
    """Whoever comes next goes on with the suspects, and counts no end."""
    mark = OffsetMetadata(worker="other", started=40, attempts=2, until=30, tried=12, alone=1)
    one = state(10, mark, end=100)
    left = one.at_rest(10)
    assert left.worker == ""
    heir = state(10, left, end=100)
    assert (heir.attempts, heir.tried, heir.alone) == (2, 12, 2)
