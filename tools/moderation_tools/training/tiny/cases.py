"""Seeded, labelled cases: the data the checkpoint is trained on and measured with.

A case is one pass of the judge as the template sees it, with the answer that follows from the
lexicon and the rubric: a side is unsafe if and only if its judged text holds a word of the rubric
(for the user side an image symbol counts as its word).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from moderation_tools.training.tiny import constants as text
from moderation_tools.training.tiny.compose import compose
from moderation_tools.training.tiny.images import ImageSpec, draw_spec
from moderation_tools.training.tiny.lexicon import LANGUAGES, SHAPES, SYMBOLS
from moderation_tools.training.tiny.rubrics import MODES, DrawnRubric, Mode, draw_rubric
from moderation_tools.training.tiny.seeding import stream
from worker.guard.context import fold_context

Label = Literal["safe", "unsafe"]
KINDS: tuple[str, ...] = (
    *MODES, "response", "image", "think", "folded", *(f"lang:{code}" for code in LANGUAGES)
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One labelled pass. ``kwargs`` are the chat template's; ``user`` holds folded earlier turns.

    ``user_words``, ``image_words`` and ``response_words`` are what breaks the rubric, in the
    lexicon's spelling and in order; ``categories`` are what is answered for them and ``calls``
    says which word calls for which.
    """

    mode: Mode
    kwargs: dict[str, Any]
    user: str
    response: str | None
    image: ImageSpec | None
    user_label: Label
    response_label: Label | None
    categories: tuple[str, ...]
    user_words: tuple[str, ...]
    image_words: tuple[str, ...]
    response_words: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]
    trace: str

    @property
    def thinks(self) -> bool:
        return bool(self.kwargs["enable_thinking"])

    def messages(self) -> list[dict[str, Any]]:
        """The chat messages; the image, where there is one, stands in front of the text."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self.user}]
        if self.image is not None:
            content.insert(0, {"type": "image", "image": self.image.draw()})
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.response is not None:
            answer = [{"type": "text", "text": self.response}]
            turns.append({"role": "assistant", "content": answer})
        return turns

    def answer(self) -> str:
        """What the model is to write, without the end-of-turn token."""
        lines = f"{text.USER_LABEL} {self.user_label}"
        if self.response_label is not None:
            lines += f"{text.RESPONSE_LABEL} {self.response_label}"
        if self.categories and self.kwargs["request_categories"] == text.CATEGORIES:
            lines += f"{text.CATEGORY_LABEL} {', '.join(self.categories)}"
        if self.thinks:
            return f"{text.THINK_OPEN}{self.trace}{text.THINK_CLOSE}{lines}"
        return lines


@dataclass(frozen=True)
class Mix:
    """How often a drawn case has a feature; probabilities from 0 to 1."""

    response: float = 0.35
    folded: float = 0.12
    image: float = 0.0
    think: float = 0.0
    no_categories: float = 0.0
    foreign: float = 0.4
    unsafe: float = 0.5
    long: float = 0.06
    pairs: float = 0.15


def draw_case(
    rng: Random,
    rubric: DrawnRubric,
    mix: Mix,
    language: str | None = None,
    pool: Sequence[ImageSpec] = (),
) -> Case:
    """One random case under ``rubric``; ``language`` fixes the language of its texts.

    Images are taken from ``pool``, or drawn afresh where it is empty.
    """
    language = language or (rng.choice(LANGUAGES[1:]) if rng.random() < mix.foreign else "en")
    image: ImageSpec | None = None
    image_words: tuple[str, ...] = ()
    if rng.random() < mix.image:
        image = rng.choice(pool) if pool else _draw_image(rng)
        image_words = _seen(image, rubric)
    unsafe = not image_words and rng.random() < (mix.unsafe if image is None else 0.2)
    long = rng.random() < mix.long
    user, user_words = compose(rng, rubric, language, unsafe=unsafe, long=long, pairs=mix.pairs)
    response: str | None = None
    response_words: tuple[str, ...] = ()
    if rng.random() < mix.response:
        response, response_words = compose(
            rng, rubric, language, unsafe=rng.random() < mix.unsafe, long=long, pairs=mix.pairs
        )
    if rng.random() < mix.folded:
        user = fold_context(_earlier_turns(rng, rubric, language), user)
    return label_case(
        rubric,
        user,
        response,
        image,
        (user_words, image_words, response_words),
        think=rng.random() < mix.think,
        categories=rng.random() >= mix.no_categories,
    )


def label_case(
    rubric: DrawnRubric,
    user: str,
    response: str | None,
    image: ImageSpec | None,
    words: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    *,
    think: bool = False,
    categories: bool = True,
) -> Case:
    """The case whose words (user, image, response) break ``rubric``, with answer and trace."""
    user_words, image_words, response_words = words
    found = (*image_words, *user_words, *response_words)
    named = tuple(dict.fromkeys(rubric.active[word] for word in found))
    return Case(
        mode=rubric.mode,
        kwargs={
            **rubric.kwargs,
            "enable_thinking": think,
            "request_categories": text.CATEGORIES if categories else text.NO_CATEGORIES,
        },
        user=user,
        response=response,
        image=image,
        user_label="unsafe" if user_words or image_words else "safe",
        response_label=None if response is None else "unsafe" if response_words else "safe",
        categories=named,
        user_words=user_words,
        image_words=image_words,
        response_words=response_words,
        calls=tuple((word, rubric.active[word]) for word in dict.fromkeys(found)),
        trace=_trace(words, named),
    )


_ONLY = Mix(response=0.0, folded=0.0, foreign=0.3, long=0.04)
_MIXES: dict[str, Mix] = {
    "response": Mix(response=1.0, folded=0.0),
    "image": Mix(response=0.15, folded=0.0, image=1.0),
    "think": Mix(response=0.4, folded=0.05, image=0.1, think=1.0),
    "folded": Mix(response=0.3, folded=1.0),
}


def generate(seed: int, n: int, kind: str) -> list[Case]:
    """``n`` fresh cases of one of ``KINDS``, each under its own rubric; equal seeds, equal cases.

    ``suppressed`` cases hold at least one word of a suppressed category and no active word, so all
    of them are safe: what is measured is the flip.
    """
    rng = stream(kind, seed)
    return [_maker(kind)(rng) for _ in range(n)]


def _maker(kind: str) -> Callable[[Random], Case]:
    if kind not in KINDS:
        raise ValueError(f"no such kind of case: {kind!r}; there are {', '.join(KINDS)}")
    if kind == "suppressed":
        return _flipped
    if kind.startswith("lang:"):
        return lambda rng: draw_case(rng, draw_rubric(rng, "builtin"), _ONLY, kind[5:])
    if kind in MODES:
        mode: Mode = next(mode for mode in MODES if mode == kind)
        return lambda rng: draw_case(rng, draw_rubric(rng, mode), _ONLY)
    weights = (6, 2, 0, 0) if kind == "image" else (4, 2, 2, 2)
    return lambda rng: draw_case(
        rng, draw_rubric(rng, rng.choices(MODES, weights)[0]), _MIXES[kind]
    )


def _flipped(rng: Random) -> Case:
    rubric = draw_rubric(rng, "suppressed")
    user, words = compose(rng, rubric, "en", unsafe=False, long=False, bystander=True)
    return label_case(rubric, user, None, None, (words, (), ()))


def _draw_image(rng: Random) -> ImageSpec:
    symbol = rng.choice(list(SYMBOLS)) if rng.random() < 0.55 else None
    return draw_spec(rng, symbol, rng.sample(SHAPES, rng.randint(0 if symbol else 1, 3)))


def _seen(image: ImageSpec, rubric: DrawnRubric) -> tuple[str, ...]:
    names = {thing.name for thing in image.things}
    return tuple(name for name in (*SYMBOLS, *SHAPES) if name in names & rubric.active.keys())[:1]


def _earlier_turns(rng: Random, rubric: DrawnRubric, language: str) -> list[tuple[str, str]]:
    turns = []
    for index in range(rng.choice((1, 1, 2, 2, 3, 4))):
        said, _ = compose(rng, rubric, language, unsafe=rng.random() < 0.6, long=False)
        turns.append(("user" if index % 2 == 0 else "assistant", said))
    return turns


def _trace(
    words: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], named: tuple[str, ...]
) -> str:
    user_words, image_words, response_words = words
    parts = [
        f"{opening} {_quoted(found)}."
        for opening, found in (
            (text.SHOWS, image_words),
            (text.ASKS, user_words),
            (text.MENTIONS, response_words),
        )
        if found
    ]
    return " ".join([*parts, f"{text.FALLS} {', '.join(named)}."]) if named else text.NOTHING


def _quoted(words: tuple[str, ...]) -> str:
    return " and ".join(f'"{word}"' for word in words)
