"""A family of guards that nobody has: other labels, other fields, other switches, other names.

Whatever knows a real family's words outside ``worker/guard`` cannot judge with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from tests.support.guards import text_of
from tests.support.openai_server import Body
from worker.contracts.verdict import Label
from worker.errors import ConfigurationError
from worker.guard.base import (
    Answer,
    Category,
    CategoryLine,
    ControlString,
    Conversation,
    Features,
    GuardModel,
    NamedCategory,
    Render,
    SideName,
    Spelling,
    Switch,
    WrittenLabel,
    malformed,
)
from worker.judgement import Rubric, RubricMode

FLOOR = "Young Ones"
_OPEN = "Weigh the words of the guest by these tides"
_LABEL = "(input|request)"
_ANSWER = re.compile(
    rf"\s*Guest = {_LABEL}(?P<second>\nHost = {_LABEL})?(?:\nTides = (?P<line>[^\n]+))?\s*"
)


class InventedGuard(GuardModel):
    """``input`` is harmless and ``request`` is not: both are single tokens of the tokenizer
    that the tests' checkpoints have."""

    name = "invented"
    title = "Invented Guard"
    features = Features(
        suppression=True,
        taxonomy=True,
        free_policy=True,
        think=True,
        scores=True,
        image_alone=False,
        local=True,
    )
    spelling = Spelling(
        user="Guest =",
        safe=" input",
        unsafe=" request",
        response="\nHost =",
        categories="\nTides =",
        first=" ",
        separators=("; ",),
        other="Rude Gulls",
        floor=FLOOR,
    )
    categories = (
        Category("T-1", "Rude Gulls", aliases=("rude birds",)),
        Category("T-2", "Broken Masts"),
        Category("T-3", FLOOR, "critical", ("young one",)),
    )
    floor = FLOOR
    control_strings = (
        ControlString("Guest ="),
        ControlString("Host ="),
        ControlString("Tides ="),
        ControlString("{musing}"),
        ControlString("{mused}"),
        ControlString("~~harbour~~"),
        ControlString("<|anchor|>", token=True),
    )
    switches = (Switch("tides", "taxonomy", "* A", "* A\n* B, which is longer"),)
    own_kwargs = frozenset({"tides", "log_book", "muse"})
    trace_tags = ("{musing}", "{mused}")
    no_text = "(a picture)"
    sample_words: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"squawk": "Rude Gulls", "splinter": "Broken Masts", "zibblefant": FLOOR}
    )

    def recognises(self, model: str) -> bool:
        return model.startswith("harbour")

    def builtin_text(self, suppressed: Collection[str]) -> str | None:
        kept = [name for name in self.names if name not in suppressed or name == FLOOR]
        return None if len(kept) == len(self.names) else "\n".join(f"* {name}" for name in kept)

    def taxonomy_text(self, categories: Sequence[tuple[str, str]]) -> str:
        own = [f"* {name} | {note}" for name, note in categories]
        return "\n".join([*own, f"* {FLOOR}"])

    def policy_text(
        self, name: str, description: str, disallowed: Sequence[str], allowed: Sequence[str]
    ) -> str:
        lines = [f"{name}: {description}", *(f"never {each}" for each in disallowed)]
        return "\n".join([*lines, f"never {FLOOR}", *(f"fine {each}" for each in allowed)])

    def floor_missing(self, rubric: Rubric) -> str | None:
        lines = (rubric.text or "").split("\n")
        if rubric.mode == "builtin":
            return None if rubric.text is None else "there is a text"
        line = f"never {FLOOR}" if rubric.mode == "policy" else f"* {FLOOR}"
        return None if line in lines else "its line is gone"

    def template_kwargs(
        self, mode: RubricMode, text: str | None, *, think: bool
    ) -> dict[str, object]:
        own = {} if text is None else {"log_book" if mode == "policy" else "tides": text}
        return {"muse": think, **own}

    def conversations(
        self, user: str, response: str | None, earlier: Sequence[tuple[str, str]]
    ) -> tuple[Conversation, ...]:
        asked = ("user", self.fold(earlier, user))
        if response is None:
            return (Conversation(("user",), (asked,)),)
        return (Conversation(("user", "response"), (asked, ("assistant", response))),)

    def check_template(self, render: Render, bos: str) -> str:
        plain = render("a guest", "a host")
        if "a guest" not in plain or render("a guest", "a host", muse=True) == plain:
            raise ConfigurationError("chat template: it is none of the harbour's")
        return ""

    def line_tokens(self, mode: RubricMode) -> int:
        return 24

    def parse(
        self, text: str, labels: Sequence[SideName], rubric: Rubric, *, think: bool = False
    ) -> Answer:
        trace, rest = self.split_trace(text)
        match = _ANSWER.fullmatch(rest)
        if match is None or (think and trace is None):
            raise malformed("no tide")
        if bool(match["second"]) != ("response" in labels):
            raise malformed("a host too many or too few")
        begins = len(text) - len(rest)
        found = []
        for group in (1, 3) if match["second"] else (1,):
            start, end = match.span(group)
            label: Label = "safe" if match[group] == "input" else "unsafe"
            found.append(WrittenLabel(label, begins + start - 1, begins + start, begins + end))
        if match["line"] is None:
            return Answer(trace, tuple(found), None)
        if all(each.label == "safe" for each in found):
            raise malformed("a tide without a storm")
        at = begins + match.start("line") - 1
        names = tuple(
            NamedCategory(name, at + 1 + left, at + 1 + right)
            for name, left, right in self.split_categories(match["line"], rubric)
        )
        return Answer(trace, tuple(found), CategoryLine(names, at, begins + match.end("line")))

    def split_categories(self, line: str, rubric: Rubric) -> tuple[NamedCategory, ...]:
        found: dict[str, NamedCategory] = {}
        for each in re.finditer(r"[^;\s](?:[^;]*[^;\s])?", line):
            name = self.canonical(each[0]) or each[0]
            found.setdefault(name, NamedCategory(name, *each.span()))
        return tuple(found.values())


INVENTED = InventedGuard()
TEMPLATE = (
    "{{ bos_token }}~~harbour~~\n{{ log_book or '" + _OPEN + "' }}\n{{ tides or 'all tides' }}\n\n"
    "~~talk~~\nGuest: {{ messages[0].content }}\n"
    "{% if messages | length > 1 %}Host: {{ messages[1].content }}\n{% endif %}"
    "~~ashore~~\nNow say it{{ ' and muse' if muse else '' }}\nhere:"
)
"""For the local judge: a chat template with the family's own switches."""


def prompt(messages: Sequence[Body], kwargs: Mapping[str, Any]) -> str:
    """What a server's template renders."""
    said = "\n".join(f"{each['role']}: {text_of(each)}" for each in messages)
    return (
        f"~~harbour~~ {kwargs.get('log_book', _OPEN)} {kwargs.get('tides', 'all tides')}\n{said}\n"
        f"{'muse' if kwargs.get('muse') else 'say'}"
    )
