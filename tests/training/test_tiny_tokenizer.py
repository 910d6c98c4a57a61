"""Promises of the demonstration checkpoint's tokenizer."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from moderation_tools.training.tiny import constants
from moderation_tools.training.tiny.cases import KINDS, generate
from moderation_tools.training.tiny.lexicon import LANGUAGES, harmful_words, neutral_words
from moderation_tools.training.tiny.prompt import closing_text, event_text, prefix_text
from moderation_tools.training.tiny.tokenizer import build_tokenizer
from moderation_tools.training.tiny.vocabulary import VOCABULARY_MULTIPLE, vocabulary


@lru_cache
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_survives_encoding_and_decoding(text: str) -> None:
    """Byte fallback makes the round trip lossless for every Unicode text."""
    assert tokenizer().decode(encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*constants.constant_pieces(), " grenade", "爆弾", "é", "\n", "x"]))
)
def test_constant_text_survives_in_any_arrangement(parts: list[str]) -> None:
    """The template's own strings stand in no way of a lossless round trip."""
    text = "".join(parts)
    assert tokenizer().decode(encode(text)) == text


def test_both_labels_are_one_token_each() -> None:
    """`` safe`` and `` unsafe`` can be read off the logits of one position."""
    safe, unsafe = encode(" safe"), encode(" unsafe")
    assert len(safe) == len(unsafe) == 1
    assert safe != unsafe
    for label in (constants.USER_LABEL, constants.RESPONSE_LABEL):
        assert encode(f"{label} unsafe") == encode(label) + unsafe


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_parts_tokenised_apart_join_to_the_whole(kind: str) -> None:
    """Policy prefix, event, closing and answer may be tokenised separately."""
    for case in generate(11, 20, kind):
        parts = [prefix_text(case.kwargs), event_text(case), closing_text(case.kwargs)]
        parts.append(case.answer() + "<end_of_turn>")
        assert encode("".join(parts)) == [token for part in parts for token in encode(part)]


def test_every_lexicon_word_is_one_token_in_each_of_its_places() -> None:
    """Known words are whole tokens after a blank, in quotes and, where unsegmented, in a run."""
    for language in LANGUAGES:
        for word in (*harmful_words(language), *neutral_words(language)):
            assert len(encode(f" {word}")) == 1, word
            assert len(encode(word)) == 1, word
    assert encode("本爆弾水") == encode("本") + encode("爆弾") + encode("水")


def test_known_words_are_not_seen_inside_unknown_ones() -> None:
    """``skillful`` holds no ``kill``: Latin words are looked up whole."""
    grenade = set(encode("grenade") + encode(" grenade"))
    assert not grenade & set(encode("grenadesque xgrenade"))


def test_vocabulary_size_suits_other_engines() -> None:
    """The vocabulary is a multiple of 64 and holds each piece once."""
    pieces = vocabulary().pieces
    assert len(pieces) % VOCABULARY_MULTIPLE == 0
    assert len(set(pieces)) == len(pieces)
