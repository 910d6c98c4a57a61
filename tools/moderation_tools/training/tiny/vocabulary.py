"""The vocabulary: every piece, what it stands for and in which written form.

A piece is a *base* (a word, a category name, a constant, a character, a byte) in a *form* (after a
blank, capitalised, plural, as a numbered taxonomy line ...). Forms of one base share one row while
the base checkpoint trains, so a word learnt in one form is known in all of them.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from moderation_tools.training.tiny.constants import TAXONOMY_LINES, constant_pieces
from moderation_tools.training.tiny.languages import UNSEGMENTED
from moderation_tools.training.tiny.lexicon import (
    FUNCTION_WORDS,
    HARMFUL,
    LANGUAGES,
    NEUTRAL,
    harmful_words,
    neutral_words,
)
from worker.guard.nemotron35 import BUILTIN

SPECIAL: tuple[str, ...] = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
"""Added tokens in id order: pad 0, eos 1, bos 2 as in Gemma 3."""

VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True)
class Vocabulary:
    """``pieces[i]`` is token i; ``base[i]`` and ``form[i]`` are its rows in the shared tables."""

    pieces: list[str]
    base: list[int]
    form: list[int]
    base_names: list[str]
    form_names: list[str]

    @property
    def ids(self) -> dict[str, int]:
        return {piece: index for index, piece in enumerate(self.pieces)}

    def base_of(self, name: str) -> int:
        """The base row called ``name``; KeyError where there is none."""
        return {name: index for index, name in enumerate(self.base_names)}[name]


def word_forms(word: str, *, plural: bool, upper: bool) -> dict[str, str]:
    """Form name → written form, without the blank in front."""
    forms = {"word": word, "capital": word[:1].upper() + word[1:]}
    if plural and word.isascii():
        ending = "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
        forms |= {"plural": word + ending, "capital plural": forms["capital"] + ending}
        if upper:
            forms["upper"] = word.upper()
    return forms


def vocabulary() -> Vocabulary:
    """The whole vocabulary, always in the same order, padded to ``VOCABULARY_MULTIPLE``."""
    entries: dict[str, tuple[str, str]] = {piece: (piece, "special") for piece in SPECIAL}

    def add(piece: str, base: str, form: str) -> None:
        entries.setdefault(piece, (base, form))

    for value in range(256):
        add(f"<0x{value:02X}>", f"<0x{value:02X}>", "byte")
    for name, line in zip(BUILTIN, TAXONOMY_LINES, strict=True):
        add(f" {name}", name, "blank name")
        add(name, name, "name")
        add(f"\n{line}", name, "line")
    for piece in constant_pieces():
        add(piece, piece.strip(), "constant" if piece[0] != " " else "blank constant")
    for character in "\n \t" + string.punctuation + string.digits + "…–—’‘“”«»¿¡、。，！？؟।":
        add(character, character, "character")
        if not character.isspace():
            add(f" {character}", character, "blank character")
    harmful_english = {word for words in HARMFUL.values() for word in words}
    words: dict[str, bool] = dict.fromkeys(FUNCTION_WORDS, False)
    words |= dict.fromkeys((*NEUTRAL, *sorted(harmful_english)), True)
    for language in LANGUAGES[1:]:
        foreign = (*harmful_words(language), *neutral_words(language))
        words |= {word: False for word in foreign if word not in words}
    for word, plural in words.items():
        harmful = word in harmful_english
        for form, written in word_forms(word, plural=plural, upper=harmful).items():
            if written == word and form != "word":
                continue
            add(f" {written}", word, f"blank {form}")
            if harmful or form in ("word", "capital"):
                add(written, word, form)
    for character in string.ascii_letters:
        add(character, character, "letter")
    pieces = list(entries)
    while len(pieces) % VOCABULARY_MULTIPLE:
        filler = f"<unused{len(pieces)}>"
        entries[filler] = (filler, "special")
        pieces.append(filler)
    base_names = list(dict.fromkeys(base for base, _ in entries.values()))
    form_names = list(dict.fromkeys(form for _, form in entries.values()))
    base_index = {name: index for index, name in enumerate(base_names)}
    form_index = {name: index for index, name in enumerate(form_names)}
    return Vocabulary(
        pieces=pieces,
        base=[base_index[base] for base, _ in entries.values()],
        form=[form_index[form] for _, form in entries.values()],
        base_names=base_names,
        form_names=form_names,
    )


def unsegmented_words() -> list[str]:
    """Words looked up inside a run of letters: those of the unsegmented scripts, longest first."""
    words = {
        word
        for language in UNSEGMENTED
        for word in (*harmful_words(language), *neutral_words(language))
    }
    return sorted(words, key=lambda word: (-len(word), word))
