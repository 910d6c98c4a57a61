"""What is kept beside an offset reads back as it was written, and fits; all else is nothing."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from worker.log.base import PLAIN, OffsetMetadata
from worker.log.metadata import MAX_BYTES, decode_metadata, encode_metadata, encode_runs

NAMES = st.text("0123456789abcdef", max_size=12)


@st.composite
def runs(draw: st.DrawFn, base: int) -> tuple[tuple[int, int], ...]:
    at, found = base, []
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)))):
        found.append((at + gap, at + gap + length))
        at += gap + length
    return tuple(found)


@st.composite
def positions(draw: st.DrawFn) -> tuple[int, OffsetMetadata]:
    base = draw(st.integers(0, 2**50))
    tried = draw(st.none() | st.integers(base, base + 1000))
    return base, OffsetMetadata(
        finished=draw(runs(base)),
        attempts=draw(st.integers(0, 9)),
        until=draw(st.integers(0, 2**62)),
        worker=draw(NAMES),
        started=draw(st.integers(0, 2**62)),
        tried=tried,
        alone=0 if tried is None else draw(st.integers(0, 9)),
        explained=draw(NAMES),
    )


@given(positions(), st.integers(0, 2**40), NAMES)
def test_metadata_reads_back_as_it_was_written(
    position: tuple[int, OffsetMetadata], sequence: int, stamp: str
) -> None:
    """A crash must find exactly what was committed."""
    offset, metadata = position
    if not metadata.worker:
        metadata = msgspec.structs.replace(metadata, started=0)
    text = encode_metadata(metadata, offset, sequence=sequence, stamp=stamp)
    read = decode_metadata(text, offset, stamp=stamp)
    assert (read.metadata, read.sequence, read.dropped) == (metadata, sequence, "")


@given(st.one_of(st.none(), st.text(), st.text("0123=;-abr.untilatempdonv", max_size=80)))
def test_any_other_metadata_counts_as_plain(text: str | None) -> None:
    """Another tool's metadata neither breaks a claim, nor blames a record, nor skips one."""
    read = decode_metadata(text, 7)
    assert read.metadata.finished == ()
    assert min(read.metadata.attempts, read.metadata.until, read.sequence) >= 0


def test_a_map_of_another_place_is_dropped_and_said() -> None:
    """A mirrored cluster, a topic made anew, an offset that was reset: records would be skipped."""
    metadata = OffsetMetadata(finished=((12, 20),), attempts=1, until=30)
    text = encode_metadata(metadata, 10, stamp="here")
    for read in (
        decode_metadata(text, 11, stamp="here"),
        decode_metadata(text, 10, stamp="there"),
        decode_metadata(text.replace("v=1", "v=2"), 10, stamp="here"),
        decode_metadata(text.replace("done=", "done=x"), 10, stamp="here"),
    ):
        assert read.metadata == msgspec.structs.replace(metadata, finished=())
        assert read.dropped


def test_a_plain_position_carries_no_text() -> None:
    """An offset without a map and without suspicion looks like anybody's."""
    assert encode_metadata(PLAIN, 5) == ""


def test_versions_before_the_map_read_their_own_part() -> None:
    """They split at ``;`` and ``=``, want ``attempts`` and ``until``, and ignore the rest."""
    metadata = OffsetMetadata(finished=((12, 20),), attempts=2, until=30, worker="ab", tried=10)
    text = encode_metadata(metadata, 10, sequence=9, stamp="s")
    fields = dict(part.split("=", 1) for part in text.split(";") if part)
    assert (fields["attempts"], fields["until"]) == ("2", "30")
    old = decode_metadata("attempts=3;until=40", 10).metadata
    assert (old.attempts, old.until, old.worker) == (3, 40, "")


def test_the_shorter_form_is_taken() -> None:
    """Long runs are cheap as lengths, single holes as bits."""
    assert len(encode_runs([(1, 20_000)], 0)) <= 8
    holes = [(at, at + 1) for at in range(1, 20_000, 2)]
    assert len(encode_runs(holes, 0)) < MAX_BYTES
