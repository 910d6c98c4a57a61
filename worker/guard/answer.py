"""The judge's written answer, read strictly: a line is what it says or the answer is malformed.

Grammar (Nemotron 3.5 Content Safety): an optional ``<think>`` trace, then ``User Safety: safe`` or
``unsafe``, with a response ``Response Safety: …``, and where something is unsafe an optional
``Safety Categories: name, name``. Nothing is ever inferred from the category line.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.guard.taxonomy import BUILTIN, canonical_category
from worker.judgement import Rubric

MAX_NAME = 200
"""Characters of a category name that is none of the policy's; the rest is cut."""

_CODE_LINE = re.compile(r"^\s*S(\d+)\s*[:.]\s*(.+?)\s*\.?\s*$", re.MULTILINE | re.IGNORECASE)
_CODE = re.compile(r"S(\d+)", re.IGNORECASE)
_CODED_NAME = re.compile(r"S\d+\s*[:.]\s*(\S.*)", re.IGNORECASE)
_SEPARATORS = ",; \t"


class NamedCategory(NamedTuple):
    """A category and where in the line it stands: ``line[start:end]``."""

    name: str
    start: int
    end: int


class Answer(NamedTuple):
    """What one answer says. ``trace`` is None where there was none."""

    trace: str | None
    user: Label
    response: Label | None
    categories: tuple[str, ...]


def parse_answer(text: str, *, response: bool, rubric: Rubric, think: bool = False) -> Answer:
    """Read a whole answer; ``response`` and ``think`` say whether those were asked for.

    Raises:
        Undecided: ``malformed_output``, its detail naming what is wrong (never the text).
    """
    trace, rest = split_trace(text)
    if think and trace is None:
        raise _malformed("no trace was closed")
    user = _label(rest, "User Safety")
    answered = _label(rest, "Response Safety") if response else None
    categories: tuple[str, ...] = ()
    if "unsafe" in (user, answered):
        line = _line(rest, "Safety Categories")
        categories = tuple(named.name for named in split_categories(line, rubric))
    return Answer(trace, user, answered, categories)


def split_trace(text: str) -> tuple[str | None, str]:
    """The trace before the last ``</think>``, and what follows it.

    Raises:
        Undecided: ``malformed_output`` where a trace was opened and never closed.
    """
    before, close, after = text.rpartition("</think>")
    if close:
        return before.strip().removeprefix("<think>").strip(), after
    if "<think>" in text:
        raise _malformed("the trace was never closed")
    return None, text


def split_categories(line: str, rubric: Rubric) -> tuple[NamedCategory, ...]:
    """The names in a category line, in order, once each.

    Known names are matched first, longest first, so that a name with commas of its own stays whole;
    elsewhere commas outside parentheses separate. Codes and other spellings become the name.
    """
    known = _known(rubric)
    found: dict[str, NamedCategory] = {}
    position = 0
    while position < len(line):
        if line[position] in _SEPARATORS:
            position += 1
            continue
        end, name = _match_known(line, position, known)
        if name is None:
            end = _phrase_end(line, position)
            name = _canonical(line[position:end], rubric)
        if name:
            found.setdefault(name, NamedCategory(name, position, end))
        position = max(end, position + 1)
    return tuple(found.values())


def label_match(text: str, field: str) -> re.Match[str]:
    """Where the one label of a field stands: group 1 is the label, what is before it the field.

    Raises:
        Undecided: ``malformed_output`` where there is none, or more than one.
    """
    words = field.replace(" ", r"[ \t]+")
    if len(re.findall(rf"{words}[ \t]*:", text, re.IGNORECASE)) > 1:
        raise _malformed(f"{field} stands there more than once")
    match = re.search(
        rf"^[ \t]*{words}[ \t]*:[ \t]*(safe|unsafe)\b(?![ \t]+or\b)",
        text,
        re.IGNORECASE | re.MULTILINE,
    )
    if match is None:
        raise _malformed(f"{field} has no label")
    return match


def line_match(text: str, field: str) -> re.Match[str] | None:
    """Where the line of a field stands: group 1 is what it says; None where there is none."""
    words = field.replace(" ", r"[ \t]+")
    return re.search(rf"^[ \t]*{words}[ \t]*:(.*)$", text, re.IGNORECASE | re.MULTILINE)


def _label(text: str, field: str) -> Label:
    return "unsafe" if label_match(text, field)[1].lower() == "unsafe" else "safe"


def _line(text: str, field: str) -> str:
    match = line_match(text, field)
    return match[1].strip() if match else ""


def _known(rubric: Rubric) -> list[tuple[str, str]]:
    """(what may be written, the name it stands for), longest first."""
    names = {name: name for name in rubric.categories}
    for name in BUILTIN:  # a suppressed category is still named as what it is
        names.setdefault(name, name)
    return sorted(names.items(), key=lambda pair: -len(pair[0]))


def _match_known(line: str, position: int, known: list[tuple[str, str]]) -> tuple[int, str | None]:
    rest = line[position:].casefold()
    for written, name in known:
        folded = written.casefold()
        if rest.startswith(folded):
            following = rest[len(folded) :].lstrip(". \t")
            if not following or following[0] in _SEPARATORS:
                return position + len(written), name
    return position, None


def _phrase_end(line: str, position: int) -> int:
    """The next comma outside parentheses; inside them too where they do not balance."""
    depth = 0
    for index in range(position, len(line)):
        character = line[index]
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character in ",;" and depth <= 0:
            return index
    if depth > 0:
        comma = line.find(",", position)
        return comma if comma >= 0 else len(line)
    return len(line)


def _canonical(phrase: str, rubric: Rubric) -> str:
    phrase = phrase.strip().rstrip(".").strip()
    code = _CODE.fullmatch(phrase)
    if code:
        return _codes(rubric).get(int(code[1]), phrase)
    coded = _CODED_NAME.fullmatch(phrase)
    if coded:
        phrase = coded[1].strip()
    folded = " ".join(phrase.split()).casefold()
    for name in rubric.categories:
        if " ".join(name.split()).casefold() == folded:
            return name
    if rubric.mode != "policy":
        phrase = canonical_category(phrase) or phrase
    return phrase[:MAX_NAME]


def _codes(rubric: Rubric) -> dict[int, str]:
    """What ``S1`` means: the line of the rubric's own text, else the stock taxonomy's number."""
    if rubric.mode == "policy":
        return {}
    stock = dict(enumerate(BUILTIN, start=1))
    own = {int(number): name for number, name in _CODE_LINE.findall(rubric.text or "")}
    if rubric.text is None or (own and own.items() <= stock.items()):
        return stock  # with lines left out, a suppressed one can still be answered by its code
    return own


def _malformed(detail: str) -> Undecided:
    return Undecided(UndecidedReason.MALFORMED_OUTPUT, detail=detail)
