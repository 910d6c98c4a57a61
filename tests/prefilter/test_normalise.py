"""A phrase is found behind every disguise of its level, and folding makes nothing up."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.prefilter.normalise import views, visible, words
from worker.prefilter.phrases import PhraseList, PhraseMatcher

WORDS = ("cocaine", "buy now", "kill yourself", "free money")
CYRILLIC = str.maketrans("aceiopxyk", "асеіорхук")
GREEK = str.maketrans("aoik", "αοικ")
INVISIBLE = "\u200b\u200d\u2060\ufeff\u00ad\u034f\ufe0f\U000e0041\u3164"


def fullwidth(text: str) -> str:
    return "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text)


def mathematical(text: str) -> str:
    return "".join(chr(0x1D41A + ord(each) - 97) if "a" <= each <= "z" else each for each in text)


def struck_through(text: str) -> str:
    return "".join(f"{each}\u0336" for each in text)


def accented(text: str) -> str:
    return text.translate(str.maketrans("aeiou", "àéïõü"))


def hidden(text: str) -> str:
    return "".join(f"{each}{INVISIBLE[index % len(INVISIBLE)]}" for index, each in enumerate(text))


def in_squares(text: str) -> str:
    return "".join(chr(0x1F170 + ord(each) - 97) if "a" <= each <= "z" else each for each in text)


DISGUISES: dict[str, Callable[[str], str]] = {
    "case": str.upper,
    "fullwidth": fullwidth,
    "mathematical": mathematical,
    "squares": in_squares,
    "struck through": struck_through,
    "accents": accented,
    "invisible": hidden,
    "cyrillic": lambda text: text.translate(CYRILLIC),
    "greek": lambda text: text.translate(GREEK),
    "blanks": lambda text: text.replace(" ", " \n\t\u3000\u00a0"),
    "punctuation": lambda text: text.replace(" ", " -- ... "),
}
LOOSE: dict[str, Callable[[str], str]] = {
    "signs": lambda text: text.translate(str.maketrans("aeios", "@3!0$")),
    "digits": lambda text: text.translate(str.maketrans("aeiost", "431057")),
    "l as 1": lambda text: text.replace("l", "1"),
    "dots": lambda text: " ".join(".".join(word) for word in text.split()),
    "hyphens": lambda text: " ".join("-".join(word) for word in text.split()),
    "underscores": lambda text: " ".join("_".join(word) for word in text.split()),
}


@pytest.mark.parametrize("name", [*DISGUISES, *LOOSE])
@pytest.mark.parametrize("phrase", WORDS)
def test_a_phrase_is_found_behind_each_disguise_of_its_level(name: str, phrase: str) -> None:
    """What a reader still reads, a list still finds."""
    disguise = (DISGUISES | LOOSE)[name]
    text = f"hello there {disguise(phrase)} my friend"
    normalised = PhraseMatcher([PhraseList(phrases=[phrase])])
    loose = PhraseMatcher([PhraseList(phrases=[phrase], match="loose")])
    exact = PhraseMatcher([PhraseList(phrases=[phrase], match="exact")])
    changed = disguise(phrase) != phrase
    assert loose.search(text) == [0]
    assert normalised.search(text) == ([0] if name in DISGUISES or not changed else [])
    assert exact.search(text) == ([] if changed else [0])


def test_letters_with_blanks_between_them_are_joined() -> None:
    """The oldest trick there is."""
    matcher = PhraseMatcher([PhraseList(phrases=["cocaine"], match="loose")])
    for text in ("c o c a i n e", "c  o  c  a  i  n  e", "c. o. c. a. i. n. e."):
        assert matcher.search(f"want {text} today") == [0]


def test_signs_at_the_end_of_a_word_are_punctuation() -> None:
    """Whoever shouts is still understood."""
    matcher = PhraseMatcher([PhraseList(phrases=["free money"], match="loose")])
    for text in ("fr33 money!", "fr33 money!!!", '"fr33 money!"', "free m0ney+", "fr3e mon3y!?"):
        assert matcher.search(text) == [0]


@given(st.lists(st.sampled_from(list(DISGUISES)), max_size=4), st.sampled_from(WORDS), st.text())
def test_disguises_do_not_add_up_to_an_escape(names: list[str], phrase: str, before: str) -> None:
    """Several at once, behind any text at all, are seen through as well as one."""
    text = phrase
    for name in names:
        text = DISGUISES[name](text)
    # Text in another script around it may make lookalikes honest: not what is tested here.
    before = "".join(each for each in before if each.isascii())
    matcher = PhraseMatcher([PhraseList(phrases=[phrase])])
    assert matcher.search(f"{before} . {text}") == [0]


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("pot", "у него болит рот и нос"),  # Russian for mouth, of lookalikes only
        ("cop", "в лесу сор и мох"),
        ("ass", "first class"),
        ("cocaine", "cocaines"),
        ("hell", "hello"),
        ("no", "мы ждём но не там"),
    ],
)
def test_innocent_text_is_not_taken_for_a_phrase(phrase: str, text: str) -> None:
    """Russian stays Russian, and a word is not its syllables."""
    assert PhraseMatcher([PhraseList(phrases=[phrase], match="loose")]).search(text) == []


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    """Phrases are folded when they are listed, texts when they are searched: alike."""
    assert words(words(text)) == words(text)


@given(st.text(st.characters(codec=None)))
def test_every_view_of_any_text_is_folded(text: str) -> None:
    """Whatever comes, lone surrogates included: single blanks, nothing invisible, no error."""
    for view in (each.text for each in views(text, loose=True)):
        assert view == " ".join(view.split())
        assert visible(view) == view


def test_nothing_invisible_is_left_out_of_the_list() -> None:
    """Format characters that a newer Unicode adds show up here."""
    seen = [
        hex(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cf", "Cs") and visible(chr(code))
    ]
    assert seen == []
