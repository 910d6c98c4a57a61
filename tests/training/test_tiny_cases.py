"""Promises of the seeded case generator."""

from __future__ import annotations

import pytest

from moderation_tools.training.tiny.cases import KINDS, Case, Mix, draw_case, generate
from moderation_tools.training.tiny.images import draw_image
from moderation_tools.training.tiny.lexicon import (
    FUNCTION_WORDS,
    HARMFUL,
    LANGUAGES,
    NEUTRAL,
    SHAPES,
    SYMBOLS,
    category_of,
    harmful_words,
    neutral_words,
)
from moderation_tools.training.tiny.rubrics import draw_rubric
from moderation_tools.training.tiny.seeding import stream
from worker.guard.context import JUDGED_MARK
from worker.guard.nemotron35 import BUILTIN, FLOOR


def test_lexicon_gives_every_category_ten_english_words() -> None:
    """All 24 categories of the taxonomy are covered, in its order."""
    assert tuple(HARMFUL) == BUILTIN
    assert {len(words) for words in HARMFUL.values()} == {10}


def test_no_word_is_both_harmful_and_neutral() -> None:
    """A word belongs to one category at most, in whatever language it is written."""
    harmful = category_of()
    listed = [word for code in LANGUAGES for word in harmful_words(code)]
    assert len(set(listed)) == len(listed)
    for code in LANGUAGES:
        assert not set(neutral_words(code)) & set(harmful), code
    assert not set(FUNCTION_WORDS) & (set(harmful) | set(NEUTRAL))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_cases(kind: str) -> None:
    """Cases are a pure function of seed, number and kind, and differ with the seed."""
    assert generate(3, 8, kind) == generate(3, 8, kind)
    assert generate(3, 8, kind) != generate(4, 8, kind)


def test_unknown_kind_is_refused_by_name() -> None:
    """A typing error in the kind names the kinds there are."""
    with pytest.raises(ValueError, match="no such kind of case: 'buitlin'"):
        generate(0, 1, "buitlin")


@pytest.mark.parametrize("kind", KINDS)
def test_labels_follow_from_the_words(kind: str) -> None:
    """A side is unsafe exactly when it holds a word of the rubric; categories name those words."""
    for case in generate(5, 60, kind):
        found = (*case.image_words, *case.user_words, *case.response_words)
        assert (case.user_label == "unsafe") == bool(case.user_words or case.image_words)
        assert (case.response_label == "unsafe") == bool(case.response_words)
        assert set(case.categories) == {dict(case.calls)[word] for word in found}
        for word in case.user_words:
            assert word.casefold() in judged(case).casefold()


def test_both_labels_are_drawn_often() -> None:
    """No kind but the suppressed one is one-sided."""
    for kind in KINDS:
        unsafe = sum(case.user_label == "unsafe" for case in generate(6, 200, kind))
        assert unsafe == 0 if kind == "suppressed" else 60 <= unsafe <= 140, kind


def test_pairs_says_how_often_a_text_breaks_a_rubric_twice() -> None:
    """At 0 every unsafe text holds one word of the rubric, at 1 as good as every one holds two."""
    for pairs in (0, 1):
        rng = stream("pairs", 8)
        mix = Mix(unsafe=1.0, pairs=pairs)
        drawn = [draw_case(rng, draw_rubric(rng, "builtin"), mix) for _ in range(50)]
        twice = sum(len(case.user_words) == 2 for case in drawn)
        assert twice == 50 * pairs


def test_floor_words_break_every_rubric() -> None:
    """Under suppression, own taxonomies and free text alike."""
    for kind in ("builtin", "taxonomy", "policy", "folded"):
        for case in generate(7, 200, kind):
            for word, category in case.calls:
                if word in HARMFUL[FLOOR]:
                    assert category == FLOOR


def test_trace_agrees_with_the_labels() -> None:
    """The THINK trace names each breaking word and each category, in three sentences at most."""
    for case in generate(8, 200, "think"):
        assert case.answer().startswith(f"<think>\n{case.trace}\n\n\n</think>User Safety: ")
        assert case.trace.count(". ") <= 2
        if not case.categories:
            assert case.trace == "Nothing harmful was found."
        for word, category in case.calls:
            assert f'"{word}"' in case.trace
            assert category in case.trace


@pytest.mark.parametrize("thing", [*SYMBOLS, *SHAPES])
def test_images_are_seeded_and_vary(thing: str) -> None:
    """Any symbol and any shape can be drawn, the same for the same seed."""
    symbol, shapes = (thing, ()) if thing in SYMBOLS else (None, (thing,))
    first = draw_image(symbol, shapes, seed=1, size=96)
    assert first.size == (96, 96)
    assert first.mode == "RGB"
    assert first.tobytes() == draw_image(symbol, shapes, seed=1, size=96).tobytes()
    assert first.tobytes() != draw_image(symbol, shapes, seed=2, size=96).tobytes()


def judged(case: Case) -> str:
    return case.user.split(f"\n{JUDGED_MARK}\n")[-1]
