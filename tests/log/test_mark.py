"""A mark survives the metadata of an offset; metadata of others is no mark."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.log.base import UNMARKED, Mark
from worker.log.kafka.committer import decode_mark, encode_mark


@given(st.integers(0, 10**6), st.integers(0, 2**62))
def test_a_mark_reads_back_as_it_was_written(attempts: int, until: int) -> None:
    """Encoding and decoding are inverse."""
    mark = Mark(attempts=attempts, until=until)
    assert decode_mark(encode_mark(mark)) == mark


@given(st.one_of(st.none(), st.text()))
def test_any_other_metadata_counts_as_unmarked(metadata: str | None) -> None:
    """Another tool's metadata neither breaks a claim nor blames a record."""
    assert decode_mark(metadata) == UNMARKED


def test_a_plain_commit_carries_no_metadata() -> None:
    """An offset without suspicion looks like anybody's."""
    assert encode_mark(UNMARKED) == ""
