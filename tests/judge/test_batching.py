"""Which contexts go together: the oldest always, its likes in length beside it, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from worker.judge.local.scheduler import pick_packed, pick_padded
from worker.judge.reference.decode import Context, chunks


@dataclass(frozen=True)
class Waiting:
    tokens: int
    adapter: str | None = None


waiting = st.lists(
    st.builds(Waiting, st.integers(1, 500), st.sampled_from([None, "a", "b"])), max_size=60
)


@given(waiting=waiting, rows=st.integers(1, 16), tokens=st.integers(1, 4000))
def test_a_batch_keeps_its_bounds_and_one_adapter(
    waiting: list[Waiting], rows: int, tokens: int
) -> None:
    """At most so many rows and padded tokens, unless one context alone is larger."""
    chosen = [waiting[index] for index in pick_padded(waiting, rows, tokens)]
    assert len(chosen) <= rows
    assert len({each.adapter for each in chosen}) <= 1
    width = max((each.tokens for each in chosen), default=0)
    assert len(chosen) <= 1 or width * len(chosen) <= tokens


@given(waiting=waiting, rows=st.integers(1, 16), tokens=st.integers(1, 4000))
def test_nothing_starves(waiting: list[Waiting], rows: int, tokens: int) -> None:
    """The oldest is always taken, so everything is, in at most as many batches as contexts."""
    left = list(waiting)
    for _ in range(len(waiting)):
        chosen = set(pick_padded(left, rows, tokens))
        assert not left or 0 in chosen
        left = [each for index, each in enumerate(left) if index not in chosen]
    assert not left


@given(waiting=waiting, rows=st.integers(1, 16), tokens=st.integers(1, 4000))
def test_a_packed_batch_keeps_its_bounds_its_adapter_and_the_order(
    waiting: list[Waiting], rows: int, tokens: int
) -> None:
    """The oldest first, whatever its length; then its adapter's others as they came."""
    chosen = pick_packed(waiting, rows, tokens)
    batch = [waiting[index] for index in chosen]
    assert chosen == sorted(chosen)
    assert bool(chosen) == bool(waiting)
    assert not chosen or chosen[0] == 0
    assert len(chosen) <= rows
    assert len({each.adapter for each in batch}) <= 1
    assert len(chosen) <= 1 or sum(each.tokens for each in batch) <= tokens
    same = [index for index, each in enumerate(waiting) if each.adapter == waiting[0].adapter]
    assert chosen == same[: len(chosen)]


def test_lengths_near_the_oldest_go_first() -> None:
    lengths = [Waiting(100), Waiting(500), Waiting(110), Waiting(90), Waiting(400)]
    assert pick_padded(lengths, 3, 10_000) == [0, 2, 3]


def test_nobody_waits_gives_no_batch() -> None:
    assert pick_padded([], 4, 100) == []


@given(
    lengths=st.lists(st.integers(1, 300), max_size=40),
    rows=st.integers(1, 9),
    tokens=st.integers(1, 2000),
)
def test_chunks_hold_every_context_once_within_the_bounds(
    lengths: list[int], rows: int, tokens: int
) -> None:
    contexts = [Context(tuple(range(length))) for length in lengths]
    made = list(chunks(contexts, rows, tokens))
    assert sorted(index for chunk in made for index in chunk) == list(range(len(lengths)))
    for chunk in made:
        width = max(lengths[index] for index in chunk)
        assert len(chunk) == 1 or (len(chunk) <= rows and width * len(chunk) <= tokens)
