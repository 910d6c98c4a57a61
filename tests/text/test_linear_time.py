"""Whatever a record holds, the work on it grows with its length and no faster, and frees the loop.

CPU time is counted in rounds of a fixed loop of the same run, so that a slow machine is no finding.
"""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import event_document, input_record
from worker.contracts.decode import decode_event
from worker.errors import UnreadableRecord
from worker.guard.sanitise import Sanitiser
from worker.prefilter.phrases import PhraseList, PhraseMatcher
from worker.text.fold import fold

ROUNDS_A_BYTE = {"decode": 4, "fold": 100, "sanitise": 30, "search": 130}
"""Budgets: rounds of the loop below for one byte of input. A round takes about 38 ns."""
_ROUNDS = 200_000
SHORT, LONG = 6_000, 48_000

HOSTILE = {
    "a sentence in one sign": "\ufdfa",
    "marks": "\u0301\u0316",
    "one letter with marks": "K\u0301\u0316\u0323",
    "rare marks": "\U0001d165\U0001d16d",
    "nothing visible": "\u200b",
    "letters with nothing between": "a\u200b",
    "joiners": "\u200d\u200c",
    "selectors": "❤\ufe0f\ufe0f",
    "tags": "\U000e0041",
    "overrides": "\u202ea\u202c",
    "open embeddings": "\u202b",
    "isolates": "\u2067a\u05d0\u2069",
    "flags": "🇰",
    "flags apart": "🇰 ",
    "mathematical": "𝐜𝐨",
    "wide": "ｋｉ中",
    "enclosed": "ⓑ ",
    "small capitals": "ʙ",
    "forms": "ﻣﺮ",
    "mixed scripts": "aс",
    "control strings": "<bos>",
    "open control strings": "<BEGIN  ",
    "lines of the prompt": "\nS7:",
    "numbers": "<unused1",
    "brackets": "<[/#",
    "one long word": "a",
    "spaced letters": "a ",
    "signs": "a1$ ",
    "blanks": " ",
    "lines": "\n",
    "devanagari": "क्‍ष ",
    "emoji": "👩‍👩‍👧",
    "jamo": "ㅋㅗ",
    "han": "中 ",
    "quotes": '\\"',
    "commas": ",[",
}
SANITISE = Sanitiser({}, lambda text: ())
SEARCH = PhraseMatcher(
    [
        PhraseList(phrases=["a" * length for length in range(1, 199)]),
        PhraseList(phrases=["cocaine", "kill yourself", "bbb", "bb"], match="loose"),
        PhraseList(phrases=["Zz", "z*"], match="exact"),
    ],
    ["a fine phrase"],
)


def decoded(text: str) -> None:
    record = input_record(event_document(messages=[{"role": "user", "text": text}], other=[text]))
    try:
        decode_event(record, 1 << 24)
    except UnreadableRecord:
        return


STAGES: dict[str, Callable[[str], object]] = {
    "decode": decoded,
    "fold": fold,
    "sanitise": SANITISE._break,
    "search": SEARCH.search,
}


def cpu(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def loop() -> int:
    total = 0
    for number in range(_ROUNDS):
        total += number & 3
    return total


def rounds(work: Callable[[], object]) -> float:
    """The least CPU time of two tries, in rounds of a loop run beside them."""
    unit = min(cpu(loop) for _ in range(2)) / _ROUNDS
    return min(cpu(work) for _ in range(2)) / unit


def repeated(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


def check(stage: str, made: Callable[[int], str]) -> None:
    work = STAGES[stage]
    work(made(1_000))  # tables are filled
    short, long = made(SHORT), made(LONG)
    cost = rounds(lambda: work(long))
    before = rounds(lambda: work(short))
    size = len(json.dumps(long)) if stage == "decode" else len(long.encode())
    assert cost <= ROUNDS_A_BYTE[stage] * size, f"{stage}: {cost / size:.1f} rounds a byte"
    # Eight times as long: more than twice of that would be no line (times below 0.5 ms are noise).
    assert cost <= 2 * (LONG / SHORT) * max(before, 12_000), f"{stage}: {cost / before:.1f} times"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_of_a_hostile_text_grows_with_its_length_and_no_faster(
    name: str, stage: str
) -> None:
    """One user must not be able to take the worker's time by the shape of a text."""
    check(stage, partial(repeated, HOSTILE[name]))


pieces = st.lists(st.sampled_from([*HOSTILE.values(), "x", ". ", "é"]), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(pieces, pieces, st.sampled_from(sorted(STAGES)))
def test_so_does_the_time_of_every_mixture(first: list[str], then: list[str], stage: str) -> None:
    """Two halves of repeated mixtures: what one table of cases forgets."""
    halves = ["".join(each) for each in (first, then)]
    check(stage, lambda size: "".join(repeated(each, size // 2) for each in halves))


@pytest.mark.parametrize("stage", ["fold", "sanitise", "search"])
def test_memory_is_bounded_by_the_size_of_the_text(stage: str) -> None:
    """A small multiple of four bytes a character, whatever the text."""
    for name, unit in HOSTILE.items():
        text = repeated(unit, 20_000)
        STAGES[stage](text[:1_000])
        tracemalloc.start()
        STAGES[stage](text)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 64 * 4 * len(text) + 4_000_000, f"{name}: {peak / (4 * len(text)):.1f} x"


async def longest_stall(work: Callable[[], object]) -> float:
    """Seconds for which the event loop was not reached while a thread worked."""
    longest = 0.0
    running = asyncio.ensure_future(asyncio.to_thread(work))
    last = time.monotonic()
    while not running.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    await running
    return longest


@pytest.mark.parametrize("name", ["marks", "mixed scripts", "han", "tags"])
async def test_the_loop_is_reached_while_a_long_text_is_read(name: str) -> None:
    """Work on a text is in pieces: none holds the interpreter for more than 50 ms of its time.

    What a busy machine adds is measured beside it, with a thread that lets go all the time.
    """
    text = repeated(HOSTILE[name], 400_000)

    def read() -> None:
        folded = fold(text).text
        SANITISE._break(folded)
        SEARCH.search(text, folded)

    stall = min([await longest_stall(read) for _ in range(2)])
    idle = max([await longest_stall(lambda: [loop() for _ in range(40)]) for _ in range(2)])
    assert stall <= 0.05 + 3 * idle
