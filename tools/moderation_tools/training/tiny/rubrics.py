"""Seeded rubrics: what one pass judges against, and which words break it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

from moderation_tools.training.tiny.lexicon import (
    FUNCTION_WORDS,
    HARMFUL,
    LANGUAGES,
    NEUTRAL,
    category_of,
    harmful_words,
    neutral_words,
)
from worker.guard.nemotron35 import BUILTIN, FLOOR, builtin_taxonomy, custom_policy, custom_taxonomy

Mode = Literal["builtin", "suppressed", "taxonomy", "policy"]
MODES: tuple[Mode, ...] = ("builtin", "suppressed", "taxonomy", "policy")

_SEPARATE = set(FUNCTION_WORDS)
_CONTENT = tuple(word for word in NEUTRAL if word not in _SEPARATE)
_ENGLISH_HARMFUL = tuple(word for words in HARMFUL.values() for word in words)
_FLOOR_WORDS = set(HARMFUL[FLOOR])


@dataclass(frozen=True)
class DrawnRubric:
    """``active`` maps each word that breaks the rubric to the category answered for it.

    ``bystanders`` are words that look harmful and are not, under this rubric: suppressed,
    allowed or simply not listed. ``listed`` are the words the rubric's own text spells out.
    ``kwargs`` are the chat template's ``custom_policy`` or ``custom_taxonomy``.
    """

    mode: Mode
    kwargs: dict[str, str]
    active: dict[str, str]
    bystanders: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()


@lru_cache
def content_words(language: str) -> tuple[str, ...]:
    """The words of a language a policy may list: no function words, none of the floor."""
    if language == "en":
        return tuple(dict.fromkeys((*_CONTENT, *_ENGLISH_HARMFUL)))
    return tuple(word for word in harmful_words(language))


def draw_rubric(rng: Random, mode: Mode) -> DrawnRubric:
    """One random rubric of ``mode``."""
    if mode == "builtin":
        return DrawnRubric(mode, {}, category_of())
    if mode == "suppressed":
        return suppressing(_suppressed_names(rng))
    if mode == "taxonomy":
        return _draw_taxonomy(rng)
    return _draw_policy(rng)


def suppressing(names: frozenset[str]) -> DrawnRubric:
    """The built-in taxonomy less ``names``."""
    text = builtin_taxonomy(names)
    words = category_of()
    return DrawnRubric(
        "suppressed",
        {"custom_taxonomy": text} if text else {},
        {word: name for word, name in words.items() if name not in names or name == FLOOR},
        tuple(word for word, name in words.items() if name in names and name != FLOOR),
    )


def _suppressed_names(rng: Random) -> frozenset[str]:
    candidates = [name for name in BUILTIN if name != FLOOR]
    count = rng.randint(1, 6) if rng.random() < 0.5 else rng.randint(3, 20)
    return frozenset(rng.sample(candidates, count))


def _draw_words(rng: Random, count: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        roll = rng.random()
        if roll < 0.6:
            word = rng.choice(_CONTENT)
        elif roll < 0.9:
            word = rng.choice(_ENGLISH_HARMFUL)
        else:
            word = rng.choice(content_words(rng.choice(LANGUAGES)))
        if word not in _FLOOR_WORDS:
            words[word] = None
    return list(words)


def _draw_taxonomy(rng: Random) -> DrawnRubric:
    active = dict.fromkeys(_FLOOR_WORDS, FLOOR)
    lexicon = category_of()
    rows: list[tuple[str, str]] = []
    pool = _draw_words(rng, 30)
    listed: list[str] = []
    names = [name for name in BUILTIN if name != FLOOR]
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5, 6))):
        if rng.random() < 0.2:
            name = names.pop(rng.randrange(len(names)))
            title: list[str] = []
            active.update({word: name for word, own in lexicon.items() if own == name})
        else:
            title = [pool.pop() for _ in range(rng.choice((1, 1, 2, 2, 3)))]
            name = " ".join(_capital(word) for word in title)
        notes = [pool.pop() for _ in range(rng.choice((0, 1, 2, 2, 3)))]
        joined = (", " if rng.random() < 0.5 else " ").join(notes)
        rows.append((name, joined))
        active.update(dict.fromkeys((*title, *notes), name))
        listed += [*title, *notes]
    bystanders = tuple(pool) + tuple(w for w in rng.sample(_ENGLISH_HARMFUL, 12) if w not in active)
    return DrawnRubric(
        "taxonomy",
        {"custom_taxonomy": custom_taxonomy(rows)},
        active,
        tuple(word for word in bystanders if word not in active),
        tuple(word for word in listed if word in active),
    )


def _draw_policy(rng: Random) -> DrawnRubric:
    active = dict.fromkeys(_FLOOR_WORDS, FLOOR)
    pool = _draw_words(rng, 40)
    disallowed: list[str] = []
    listed: list[str] = []
    for _ in range(rng.choice((1, 2, 3, 3, 4, 5, 6, 8))):
        words = [pool.pop() for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        phrase = _phrase(rng, words)
        disallowed.append(phrase)
        active.update(dict.fromkeys(words, phrase))
        listed += words
    allowed: list[str] = []
    permitted: list[str] = []
    for _ in range(rng.choice((0, 0, 1, 2, 3, 4))):
        words = [pool.pop() for _ in range(rng.choice((1, 1, 2)))]
        allowed.append(_phrase(rng, words))
        permitted += words
    titles = [pool.pop() for _ in range(4)]
    name = " ".join(titles[: rng.randint(1, 2)])
    description = _sentence(rng, titles[2:])
    bystanders = [*permitted * 3, *titles, *rng.sample(_ENGLISH_HARMFUL, 10)]
    return DrawnRubric(
        "policy",
        {"custom_policy": custom_policy(name, description, disallowed, allowed)},
        active,
        tuple(word for word in bystanders if word not in active),
        tuple(listed),
    )


def _phrase(rng: Random, words: list[str]) -> str:
    parts = [_plural(word) if rng.random() < 0.15 else word for word in words]
    if len(parts) > 1 and rng.random() < 0.4:
        parts.insert(
            rng.randint(1, len(parts) - 1), rng.choice(("about", "of", "for", "and", "or"))
        )
    phrase = " ".join(parts)
    return _capital(phrase) if rng.random() < 0.3 else phrase


def _sentence(rng: Random, words: list[str]) -> str:
    fill = [rng.choice(FUNCTION_WORDS) for _ in range(rng.randint(0, 4))]
    mixed = [*words, *fill]
    rng.shuffle(mixed)
    return _capital(" ".join(mixed)) + rng.choice((".", ""))


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _plural(word: str) -> str:
    if word in _CONTENT or word in _ENGLISH_HARMFUL:
        return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")
    return word


def filler_words(language: str) -> tuple[str, ...]:
    """What harmless text of a language is made of."""
    return (*FUNCTION_WORDS, *_CONTENT) if language == "en" else neutral_words(language)
