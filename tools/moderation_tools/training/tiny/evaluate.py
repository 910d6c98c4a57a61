"""The table of the bar: what the checkpoint must get right on freshly generated cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moderation_tools.training.tiny import constants as text
from moderation_tools.training.tiny.cases import Case, generate
from moderation_tools.training.tiny.checkpoint import load
from moderation_tools.training.tiny.decode import Answer, decode
from moderation_tools.training.tiny.lexicon import LANGUAGES

Pair = tuple[Case, Answer]
FIRST_HELD_OUT_SEED = 1_000_000
"""Training draws from streams of its own; evaluation seeds are offset so that none coincide."""


@dataclass(frozen=True)
class Measured:
    """One row of the table: share right of ``count`` cases, against its bar (0 to 1)."""

    name: str
    right: int
    count: int
    bar: float

    @property
    def share(self) -> float:
        return self.right / self.count if self.count else 0.0

    @property
    def passed(self) -> bool:
        return self.count > 0 and self.share >= self.bar


@dataclass(frozen=True)
class _Row:
    name: str
    kinds: tuple[str, ...]
    bar: float
    right: Callable[[Case, Answer], bool]
    counts: Callable[[Case], bool] = lambda case: True


def _user(case: Case, answer: Answer) -> bool:
    return answer.user == case.user_label


def _response(case: Case, answer: Answer) -> bool:
    return answer.response == case.response_label


def _both(case: Case, answer: Answer) -> bool:
    return _user(case, answer) and _response(case, answer)


def _categories(case: Case, answer: Answer) -> bool:
    return set(answer.categories) == set(case.categories)


def _agrees(case: Case, answer: Answer) -> bool:
    user = text.ASKS in answer.trace or text.SHOWS in answer.trace
    response = text.MENTIONS in answer.trace
    return user == (answer.user == "unsafe") and response == (answer.response == "unsafe")


def _words(case: Case) -> tuple[str, ...]:
    return (*case.user_words, *case.image_words, *case.response_words)


def _names(case: Case, answer: Answer) -> bool:
    return all(f'"{word}"' in answer.trace for word in _words(case)) and all(
        name in answer.trace for name in case.categories
    )


def _unsafe(case: Case) -> bool:
    return bool(case.categories)


def _one_word(case: Case) -> bool:
    return _unsafe(case) and len(_words(case)) == 1


def _rows() -> list[_Row]:
    languages = tuple(f"lang:{code}" for code in LANGUAGES)
    main = ("builtin", "suppressed", "taxonomy", "policy", "response", "image", "folded", "think")
    return [
        _Row("builtin: user verdict", ("builtin",), 0.97, _user),
        _Row("response verdict", ("response",), 0.97, _response),
        _Row("builtin: categories exact", ("builtin",), 0.95, _categories, _unsafe),
        _Row("prompt + response: categories exact", ("response",), 0.95, _categories, _unsafe),
        _Row("suppressed category flips to safe", ("suppressed",), 0.95, _user),
        _Row("free-text policy: verdict", ("policy",), 0.95, _user),
        _Row("free-text policy: phrase exact", ("policy",), 0.95, _categories, _unsafe),
        _Row("own taxonomy: verdict", ("taxonomy",), 0.95, _user),
        _Row("own taxonomy: name exact", ("taxonomy",), 0.95, _categories, _unsafe),
        _Row("image: user verdict", ("image",), 0.95, _user),
        _Row("earlier turns are not judged", ("folded",), 0.95, _both),
        _Row("THINK: verdict right", ("think",), 0.95, _both),
        _Row("THINK: verdict agrees with trace", ("think",), 0.98, _agrees),
        _Row("THINK: trace names word and category", ("think",), 0.95, _names, _unsafe),
        _Row("THINK: the only word and its category", ("think",), 0.95, _names, _one_word),
        *(_Row(f"{kind[5:].upper()}: user verdict", (kind,), 0.95, _user) for kind in languages),
        _Row("answers well-formed", main, 0.99, lambda case, answer: answer.well_formed),
    ]


def evaluate(
    directory: Path,
    *,
    cases: int = 400,
    seed: int = 0,
    adapter: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> list[Measured]:
    """Measure the checkpoint on ``cases`` fresh cases of every kind (a third a language)."""
    model, processor = load(directory, adapter=adapter)
    rows = _rows()
    pairs: dict[str, list[Pair]] = {}
    for kind in dict.fromkeys(kind for row in rows for kind in row.kinds):
        count = max(10, cases // 3) if kind.startswith("lang:") else cases
        drawn = generate(FIRST_HELD_OUT_SEED + seed, count, kind)
        pairs[kind] = list(zip(drawn, decode(model, processor, drawn), strict=True))
        report(f"decoded {count} cases: {kind}")
    return [_measure(row, [pair for kind in row.kinds for pair in pairs[kind]]) for row in rows]


def _measure(row: _Row, pairs: Sequence[Pair]) -> Measured:
    counted = [(case, answer) for case, answer in pairs if row.counts(case)]
    right = sum(row.right(case, answer) for case, answer in counted)
    return Measured(row.name, right, len(counted), row.bar)


def table(measured: Sequence[Measured]) -> str:
    """The table as Markdown; a row that misses its bar is marked."""
    lines = ["| measured | right | of | share | bar | |", "|---|---:|---:|---:|---:|---|"]
    lines += [
        f"| {row.name} | {row.right} | {row.count} | {row.share:.1%} | {row.bar:.0%} | "
        f"{'' if row.passed else 'MISSED'} |"
        for row in measured
    ]
    return "\n".join(lines)
