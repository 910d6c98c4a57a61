"""Reading one mapping of a policy file field by field, with a problem for everything odd."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from worker.document import Where, dotted
from worker.errors import PolicyError
from worker.guard.taxonomy import BUILTIN, FLOOR
from worker.policy.wording import tidy, wording_problem

# Collecting every problem of a policy file, each with its line, field and fix.


class Problems:
    """The problems of one file. Nothing is raised before everything was looked at."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Where, int] = {}
        self.found: list[PolicyError] = []
        self._places: dict[Where, Where] = {}

    def place(self, kept: Where, given: Where) -> None:
        """Remember where an entry of a value stands in the file, where some were left out."""
        self._places[kept] = self._places.get(given, given)

    def add(self, where: Where, problem: str, fix: str) -> None:
        """Report a problem at a field; a field that is not there is reported at its parent."""
        for end in range(len(where), 0, -1):
            given = self._places.get(where[:end])
            if given is not None:
                where = (*given, *where[end:])
                break
        nearest = where
        while nearest and nearest not in self.lines:
            nearest = nearest[:-1]
        self.at(self.lines.get(nearest, 1), where, problem, fix)

    def at(self, line: int, where: Where, problem: str, fix: str, excerpt: str = "") -> None:
        """Report a problem at a line; ``excerpt`` shows it, with a caret beneath."""
        error = PolicyError(
            problem, fix=fix, file=self.file, line=line, field=dotted(where), excerpt=excerpt
        )
        self.found.append(error)

    def raise_any(self) -> None:
        """Raise one ``PolicyError`` for everything found, in file order, if anything was."""
        if self.found:
            raise PolicyError.of(sorted(self.found, key=lambda problem: problem.line))


def suggestion(given: str, known: Iterable[str]) -> str:
    """``Did you mean X?``, or the known values where nothing is near."""
    names = list(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{folded[near[0]]}`?"
    return f"Known: {', '.join(names)}."


def category_suggestion(given: str) -> str:
    """Which built-in category was meant: by a whole word or a usual synonym of it, then by letters.

    Several where several are near: a wrong one on a safety switch is worse than none.
    """
    words = set(re.findall(r"[^\W_]+", given.casefold()))
    meant = [name for synonym, name in _SYNONYMS.items() if synonym in words]
    shared = {name: len(words & set(_WORDS_OF[name])) for name in BUILTIN}
    most = max(shared.values())
    meant += [name for name in BUILTIN if most and shared[name] == most]
    if not meant:
        folded = {name.casefold(): name for name in BUILTIN}
        near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.8)
        meant = [folded[each] for each in near]
    meant = [name for name in dict.fromkeys(meant) if name != FLOOR]
    if not meant:
        return f"Known: {', '.join(BUILTIN)}."
    return f"Did you mean {' or '.join(f'`{name}`' for name in meant[:3])}?"


_FILLERS = frozenset({"and", "high", "risk", "making", "other", "activity", "needs"})
_WORDS_OF = {
    name: [word for word in re.findall(r"[^\W_]+", name.casefold()) if word not in _FILLERS]
    for name in BUILTIN
}
_SYNONYMS = {
    **dict.fromkeys(("weapon", "weapons", "gun", "firearms", "arms"), "Guns and Illegal Weapons"),
    **dict.fromkeys(
        ("drug", "drugs", "narcotics", "alcohol", "tobacco"), "Controlled/Regulated Substances"
    ),
    **dict.fromkeys(("selfharm", "suicidal"), "Suicide and Self Harm"),
    **dict.fromkeys(("hateful", "racism", "slurs", "discrimination"), "Hate/Identity Hate"),
    **dict.fromkeys(("personal", "doxxing", "doxing", "gdpr"), "PII/Privacy"),
    **dict.fromkeys(("bullying", "abuse", "toxicity", "insults"), "Harassment"),
    **dict.fromkeys(("threats", "threatening"), "Threat"),
    **dict.fromkeys(("swearing", "obscenity", "cursing", "vulgarity"), "Profanity"),
    **dict.fromkeys(("porn", "pornography", "nudity", "adult", "nsfw", "sex"), "Sexual"),
    **dict.fromkeys(("gore", "violent", "killing"), "Violence"),
    **dict.fromkeys(("scam", "scams", "phishing", "spam"), "Fraud/Deception"),
    **dict.fromkeys(("hacking", "cyber", "virus", "exploits"), "Malware"),
    **dict.fromkeys(("crime", "crimes"), "Criminal Planning/Confessions"),
    **dict.fromkeys(
        ("politics", "elections", "disinformation"), "Political/Misinformation/Conspiracy"
    ),
    **dict.fromkeys(("ip", "piracy"), "Copyright/Trademark/Plagiarism"),
    **dict.fromkeys(("medical", "legal", "financial"), "Unauthorized Advice"),
}

_HALF = re.compile("[\ud800-\udfff]")


def joined(text: str) -> str:
    """The text with surrogate pairs made one character, as JSON writes an emoji and YAML reads it.

    A half without its other half stays, for whoever reads on to refuse.
    """
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


Choice = TypeVar("Choice", bound=str)


class Fields:
    """The fields of one mapping. Every reader gives the default where it reported a problem.

    ``close`` reports the fields that nobody asked for, so it comes last.
    """

    def __init__(self, values: dict[str, Any], where: Where, problems: Problems) -> None:
        self._values = values
        self._known: list[str] = []
        self.where = where
        self.problems = problems

    def given(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def value(self, name: str) -> Any:
        """The value as the file has it."""
        return self._values.get(name)

    def report(self, name: str, problem: str, fix: str, *index: int) -> None:
        """Report a problem at a field, or at an entry of its list."""
        self.problems.add((*self.where, name, *index), problem, fix)

    def text(self, name: str, *, required: bool = False, limit: int = 200) -> str:
        """One line of text that may stand in front of the model; white space is collapsed."""
        value = self._take(name, required)
        return "" if value is None else self._line(name, value, limit)

    def raw(self, name: str, *, required: bool = False, limit: int = 20_000) -> str | None:
        """Text kept exactly as written: what an example says is user content."""
        value = self._take(name, required)
        if value is None:
            return None
        if not isinstance(value, str):
            self.report(name, f"expected text, found {_kind(value)}", "Put it in quotes.")
            return None
        value = joined(value)
        if _HALF.search(value):
            self.report(name, "it holds half a surrogate pair", "Write the character itself.")
        if len(value) > limit:
            self.report(name, f"longer than {limit} characters", "Shorten it.")
        return value

    def raws(self, name: str, *, limit: int, most: int) -> list[tuple[int, str]]:
        """Entries kept exactly as written, with their places; none reaches a model."""
        kept: list[tuple[int, str]] = []
        for index, value in enumerate(self._list(name, most)):
            if not isinstance(value, str):
                found = f"expected text, found {_kind(value)}"
                self.report(name, found, "Put it in quotes.", index)
            elif len(value) > limit:
                self.report(name, f"longer than {limit} characters", "Shorten it.", index)
            elif _HALF.search(joined(value)):
                fix = "Write the character itself."
                self.report(name, "it holds half a surrogate pair", fix, index)
            else:
                kept.append((index, joined(value)))
        return kept

    def texts(self, name: str, *, limit: int = 800, most: int = 64) -> tuple[str, ...]:
        """A list of lines without repeats."""
        kept: list[str] = []
        for index, value in enumerate(self._list(name, most)):
            line = self._line(name, value, limit, index)
            if not line:
                continue
            if line.casefold() in {each.casefold() for each in kept}:
                self.report(name, f"`{line}` is listed twice", "Keep one of the two.", index)
                continue
            self.problems.place((*self.where, name, len(kept)), (*self.where, name, index))
            kept.append(line)
        return tuple(kept)

    def integer(self, name: str, default: int, low: int, high: int, required: bool = False) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._take(name, required)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.report(name, f"expected a whole number, found {_kind(value)}", "Write e.g. 3.")
            return default
        if not low <= value <= high:
            self.report(name, f"{str(value)[:20]} is out of range", f"Choose {low} to {high}.")
            return default
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number from ``low`` to ``high``."""
        value = self._take(name, False)
        return default if value is None else self._number(name, value, default, low, high)

    def pair(self, name: str, default: tuple[float, float]) -> tuple[float, float]:
        """Two numbers from 0 to 1, the lower first."""
        value = self._take(name, False)
        if value is None:
            return default
        if not isinstance(value, list) or len(value) != 2:
            self.report(name, "expected two numbers", "Write e.g. [0.35, 0.65].")
            return default
        low, high = (
            self._number(name, each, each_default, 0.0, 1.0, index)
            for index, (each, each_default) in enumerate(zip(value, default, strict=True))
        )
        if low >= high:
            self.report(name, "the lower end must come first", "Write e.g. [0.35, 0.65].")
            return default
        return low, high

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._take(name, False)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.report(name, f"expected true or false, found {_kind(value)}", "Write true.")
            return default
        return value

    def choice(self, name: str, default: Choice, allowed: Collection[Choice]) -> Choice:
        """One of a few words."""
        value = self._take(name, False)
        return default if value is None else self._choice(value, default, allowed, name)

    def required_choice(self, name: str, default: Choice, allowed: Collection[Choice]) -> Choice:
        """One of a few words, which must be given."""
        value = self._take(name, True)
        return default if value is None else self._choice(value, default, allowed, name)

    def choices(self, name: str, allowed: Collection[Choice]) -> dict[str, Choice]:
        """A mapping whose values are one of a few words; its names are the caller's to check."""
        value = self._take(name, False)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.report(name, f"expected a mapping, found {_kind(value)}", "Write `name: value`.")
            return {}
        fallback = next(iter(allowed))
        return {
            key: self._choice(each, fallback, allowed, name, key) for key, each in value.items()
        }

    def section(self, name: str) -> Fields | None:
        """A nested mapping, or None where it is not given."""
        value = self._take(name, False)
        return None if value is None else self._section(name, value)

    def sections(self, name: str, *, most: int = 64) -> list[Fields]:
        """A list of mappings."""
        found = [
            self._section(name, value, index) for index, value in enumerate(self._list(name, most))
        ]
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Report every field that nobody asked for."""
        for name in self._values:
            if name == "<<":
                self.report(name, "merge keys are not supported", "Write the fields out.")
            elif name not in self._known:
                self.report(name, "unknown field", suggestion(name, self._known))

    def _take(self, name: str, required: bool) -> Any:
        self._known.append(name)
        value = self._values.get(name)
        if value is None and required:
            self.report(name, "the field is missing", f"Add `{name}:`, see docs/policies.md.")
        return value

    def _list(self, name: str, most: int) -> list[Any]:
        value = self._take(name, False)
        if value is None:
            return []
        if not isinstance(value, list):
            self.report(name, f"expected a list, found {_kind(value)}", "Write `- entry` lines.")
            return []
        if len(value) > most:
            self.report(name, f"more than {most} entries", "Merge the entries that overlap.")
        return value[:most]

    def _section(self, name: str, value: Any, *index: int) -> Fields | None:
        if not isinstance(value, dict):
            found = f"expected a mapping, found {_kind(value)}"
            self.report(name, found, "Write `field: value` lines.", *index)
            return None
        return Fields(value, (*self.where, name, *index), self.problems)

    def _line(self, name: str, value: Any, limit: int, *index: int) -> str:
        if not isinstance(value, str):
            self.report(name, f"expected text, found {_kind(value)}", "Put it in quotes.", *index)
            return ""
        value = joined(value)
        line = tidy(value)
        odd = wording_problem(value)
        if odd:
            self.report(name, odd, "Say it in plain words.", *index)
        elif not line:
            self.report(name, "empty text", "Write something or leave it out.", *index)
        elif len(line) > limit:
            self.report(name, f"longer than {limit} characters", "Shorten it.", *index)
        else:
            return line
        return ""

    def _number(
        self, name: str, value: Any, default: float, low: float, high: float, *index: int
    ) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            found = f"expected a number, found {_kind(value)}"
            self.report(name, found, "Write e.g. 0.5.", *index)
            return default
        if not low <= value <= high:
            fix = f"Choose {low:g} to {high:g}."
            self.report(name, f"{str(value)[:20]} is out of range", fix, *index)
            return default
        return float(value)

    def _choice(
        self, value: Any, default: Choice, allowed: Collection[Choice], *where: str
    ) -> Choice:
        if isinstance(value, str) and value in allowed:
            return next(each for each in allowed if each == value)
        shown = f"`{value[:60]}`" if isinstance(value, str) else _kind(value)
        fix = suggestion(value if isinstance(value, str) else "", allowed)
        self.problems.add((*self.where, *where), f"{shown} is not one of its values", fix)
        return default


def _kind(value: Any) -> str:
    """What a value is, in words; YAML reads ``no`` and ``2024-01-01`` as something else."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false (YAML reads a bare yes, no, on and off as that)"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names.get(type(value), "a date")
