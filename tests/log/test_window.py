"""The window gives out exactly the contiguous complete prefix, whatever the order of completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.log.partition import Window
from worker.records import Output

DONE = (Output(topic="t", key=None, value=b"v"),)


@dataclass
class Item:
    offset: int
    size: int = 1
    outputs: Sequence[Output] | None = field(default=None)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Item], list[int], int, int]:
    """Items with gaps in their offsets, an order of completion, and the bounds of a take."""
    gaps = draw(st.lists(st.integers(1, 5), min_size=1, max_size=40))
    offset, items = -1, []
    for gap in gaps:
        offset += gap
        items.append(Item(offset, draw(st.integers(0, 9))))
    order = draw(st.permutations(range(len(items))))
    kept = draw(st.integers(0, len(items)))
    return items, order[:kept], draw(st.integers(1, 10)), draw(st.integers(1, 30))


@given(histories())
def test_what_is_taken_is_the_contiguous_complete_prefix(
    history: tuple[list[Item], list[int], int, int],
) -> None:
    """After every completion: taken so far = the longest prefix of complete records, in order."""
    items, order, max_events, max_bytes = history
    window: Window[Item] = Window()
    for item in items:
        window.add(item)
    taken: list[Item] = []
    for index in order:
        items[index].outputs = DONE
        while batch := window.take(max_events, max_bytes):
            assert len(batch) <= max_events
            assert len(batch) == 1 or sum(one.size for one in batch) <= max_bytes
            taken.extend(batch)
        prefix = 0
        while prefix < len(items) and items[prefix].outputs is not None:
            prefix += 1
        assert taken == items[:prefix]
        assert list(window) == items[prefix:]


@given(histories())
def test_nothing_is_taken_past_an_unfinished_record(
    history: tuple[list[Item], list[int], int, int],
) -> None:
    """With the head unfinished, the window is never ready and gives out nothing."""
    items, order, max_events, max_bytes = history
    window: Window[Item] = Window()
    for item in items:
        window.add(item)
    for index in order:
        if index:
            items[index].outputs = DONE
    assert not window.ready
    assert window.take(max_events, max_bytes) == []
    assert window.head is items[0]


def test_input_that_goes_backwards_is_refused() -> None:
    """An offset at or before the newest one means that a position was lost."""
    window: Window[Item] = Window()
    window.add(Item(5))
    for offset in (5, 4):
        with pytest.raises(ValueError, match="backwards"):
            window.add(Item(offset))
