"""Phrases stand as words of their own, allowed ones take hits back, and size costs nothing."""

from __future__ import annotations

import statistics
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation_tools.bench.prefilter import matcher, search_seconds
from worker.prefilter import phrases
from worker.prefilter.normalise import Match
from worker.prefilter.phrases import PhraseList, PhraseMatcher


def found(text: str, *listed: str, allow: tuple[str, ...] = (), **fields: str) -> bool:
    each = PhraseList(phrases=listed, **fields)  # type: ignore[arg-type]
    return bool(PhraseMatcher([each], allow).search(text))


@pytest.mark.parametrize(
    ("phrase", "text", "hit"),
    [
        ("dick", "Dick!", True),
        ("dick", "(dick)", True),
        ("dick", "dickens", False),
        ("dick", "addick", False),
        ("dick*", "dickens", True),
        ("dick*", "addick", False),
        ("dick", "dick1", False),
        ("裸", "全裸の写真", True),
        ("ยาบ้า", "ขายยาบ้าที่นี่", True),
        ("코카인", "코카인을 팔아요", True),
        ("cocaine", "買cocaine的", True),
        ("kokain", "Kokains", False),
        ("कोकीन", "कोकीन बेचना", True),
        ("🍆", "want 🍆 now", True),
        ("buy now", "buy, now!", True),
        ("buy now", "buy me now", False),
        ("straße", "STRASSE", True),
    ],
)
def test_phrases_are_found_as_words(phrase: str, text: str, hit: bool) -> None:
    """Where words have blanks between them; anywhere where they have none."""
    assert found(text, phrase) == hit


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("Dick Whittington and his cat", False),
        ("DICK   whittington", False),
        ("Dick Whittington is a dick", True),
        ("dick Dick Whittington", True),
        ("Dick", True),
        ("Dick Whitt1ngton", True),
    ],
)
def test_an_allowed_phrase_takes_back_what_lies_within_it_and_nothing_else(
    text: str, hit: bool
) -> None:
    """Naming the harmless phrase beside the other is no way out."""
    assert found(text, "dick", allow=("Dick Whittington",)) == hit


def test_an_allowed_phrase_must_hold_the_whole_hit() -> None:
    """An overlap is not enough."""
    assert found("buy now here", "now here", allow=("buy now",))


def test_exact_phrases_are_compared_as_they_are_written() -> None:
    """Case and signs count, words still begin and end."""
    assert found("the C++ way", "C++", match="exact")
    assert not found("the c++ way", "C++", match="exact")
    assert not found("XC++", "C++", match="exact")


def test_each_list_tells_for_itself() -> None:
    """One pass, several answers."""
    lists = [
        PhraseList(phrases=["a b c", "grenade"]),
        PhraseList(phrases=["Grenade"], match="exact"),
        PhraseList(phrases=["gr3nade"], match="loose"),
        PhraseList(phrases=["grenade"], match="loose"),
    ]
    searcher = PhraseMatcher(lists)
    assert searcher.search("a grenade") == [0, 3]
    assert searcher.search("a Grenade") == [0, 1, 3]
    assert searcher.search("a gr3nade") == [2, 3]
    assert searcher.search("nothing") == []


alphabet = st.text("ab ", min_size=1, max_size=6)


@given(
    st.lists(alphabet.filter(lambda phrase: len(phrase.strip()) > 1), min_size=1, max_size=4),
    st.lists(alphabet.filter(lambda phrase: bool(phrase.strip())), max_size=2),
    st.text("ab .", max_size=60),
)
def test_a_text_in_parts_is_searched_as_if_it_were_whole(
    listed: list[str], allow: list[str], text: str
) -> None:
    """Parts are an economy of memory: a phrase across a border is neither lost nor made up."""
    searcher = PhraseMatcher([PhraseList(phrases=[each]) for each in listed], allow)
    whole = searcher.search(text)
    before, phrases.CHUNK = phrases.CHUNK, 3
    try:
        assert searcher.search(text) == whole
    finally:
        phrases.CHUNK = before
    if not allow:
        folded = f" {' '.join(text.replace('.', ' ').split())} "
        wanted = [f" {' '.join(each.split())} " for each in listed]
        assert whole == [index for index, each in enumerate(wanted) if each in folded]


@pytest.mark.parametrize("allow", [(), ("裸" * 5,)])
def test_a_hostile_text_takes_no_more_memory_than_its_parts(allow: tuple[str, ...]) -> None:
    """A phrase and its own pieces at every place of a long text are never held all at once."""
    pieces = PhraseList(phrases=["裸" * length for length in (1, 2, 3)])
    searcher = PhraseMatcher([pieces, PhraseList(phrases=["衣"])], allow)
    text = "裸" * 60_000
    tracemalloc.start()
    found = searcher.search(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ([] if allow else [0])
    assert peak < 40_000_000


@pytest.mark.parametrize("match", ["normalised", "loose"])
def test_ten_thousand_phrases_cost_an_event_what_ten_do(
    match: Match, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interleaved, so that a busy machine slows both: the ratio stays below 3."""
    few, many = matcher(10, match), matcher(10_000, match)
    pairs = [(search_seconds(few, 200), search_seconds(many, 200)) for _ in range(9)]
    ratio = statistics.median(large / small for small, large in pairs)
    with capsys.disabled():
        best = min(large for _, large in pairs) * 1e6
        print(f"\n  {match}: 10,000 phrases {best:.1f} µs an event, {ratio:.2f} x the cost of 10")
    assert ratio <= 3
