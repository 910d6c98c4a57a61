"""What the worker has to know of a family of guard models, behind one interface.

A family is everything that is true of one kind of guard and not of guards in general: how a request
is put into its prompt, how its answers are spelled and read, which categories it knows, which of
them is the floor, which strings steer it, and what it cannot do. Policies, judges and decisions ask
a ``GuardModel``; nothing outside this room knows a family. docs/models.md says how to add one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple
from unicodedata import normalize

from worker.codes import UndecidedReason
from worker.contracts.verdict import Label, Severity
from worker.errors import PolicyError, Undecided
from worker.guard.context import fold_context
from worker.judgement import Rubric, RubricMode

SideName = Literal["user", "response"]
"""Whose text a label is about."""

Render = Callable[..., str]
"""``render(user, response, **kwargs)``: the prompt as text, with the template's own switches."""

MAX_NAME = 200
"""Characters of a category name that is none of the policy's; the rest is cut."""


class Category(NamedTuple):
    """One of a family's own categories. ``code`` is how its prompt numbers it.

    ``severity`` holds where a policy gives none. ``aliases`` are other spellings, in lower case.
    """

    code: str
    name: str
    severity: Severity = "high"
    aliases: tuple[str, ...] = ()


class ControlString(NamedTuple):
    """A string that steers the model, and what is done about it.

    ``token``: it is one token of the tokenizer; else text of the template. ``refused``: no policy
    may hold it; in users' text every one loses its meaning. ``line``: it steers at the start of a
    line only. ``numbered``: its ``0`` stands for any number.
    """

    text: str
    token: bool = False
    refused: bool = True
    line: bool = False
    numbered: bool = False

    @property
    def name(self) -> str:
        """As verdicts and metrics name it."""
        return self.text.replace("0", "N") if self.numbered else self.text


class Features(NamedTuple):
    """What a family can do; a policy that asks for more is refused when it loads.

    ``suppression``: built-in categories can be left out. ``taxonomy``: categories of a policy's
    own. ``free_policy``: free text in their place. ``think``: reasoning traces. ``scores``: the
    share of each label, without which there is no threshold and no question about the floor.
    ``image_alone``: an image needs no text beside it. ``local``: the engine here can run it, which
    asks for one prompt that labels both sides.
    """

    suppression: bool
    taxonomy: bool
    free_policy: bool
    think: bool
    scores: bool
    image_alone: bool
    local: bool


class Spelling(NamedTuple):
    """The literal text of an answer, as the model writes it greedily.

    ``user + safe + response + unsafe + categories + first + name + separator + name`` spells a
    whole answer; ``user`` and ``response`` stand in front of the labels, ``categories`` in front of
    the line of names, ``first`` in front of its first name. ``response`` is empty where a prompt
    labels one side. ``separators`` are all that may stand between two names, the usual one first.
    ``floor`` is the floor's category as an answer names it, ``other`` another one. ``open_ended``:
    a name may begin like another one (``S1``, ``S10``), so that its score counts how likely it ends
    there.
    """

    user: str
    safe: str
    unsafe: str
    response: str
    categories: str
    first: str
    separators: tuple[str, ...]
    other: str
    floor: str
    open_ended: bool = False

    @property
    def line(self) -> str:
        """An answer up to the first name of its line."""
        return f"{self.user}{self.unsafe}{self.categories}"


class Switch(NamedTuple):
    """A keyword argument of the template, and how to find out whether a server heeds it.

    Two prompts under ``mode`` with the texts ``short`` and ``long`` must differ in length. One that
    is not ``required`` is missed only by policies that need it.
    """

    name: str
    mode: RubricMode
    short: str
    long: str
    required: bool = True


class Conversation(NamedTuple):
    """One prompt's messages (role, text) in order, and the sides that its answer labels.

    An image belongs to the last message of the user's.
    """

    labels: tuple[SideName, ...]
    turns: tuple[tuple[str, str], ...]


class NamedCategory(NamedTuple):
    """A category and where in a text its name stands: ``text[start:end]``."""

    name: str
    start: int
    end: int


class WrittenLabel(NamedTuple):
    """A label and where it stands: ``text[start:end]``; it might have begun at ``opens``."""

    label: Label
    opens: int
    start: int
    end: int


class CategoryLine(NamedTuple):
    """A category line and where it stands: ``text[start:end]`` behind its constant text."""

    names: tuple[NamedCategory, ...]
    start: int
    end: int


class Answer(NamedTuple):
    """What one answer says. ``trace`` and ``line`` are None where there was none.

    ``labels`` are those that were asked for, in order.
    """

    trace: str | None
    labels: tuple[WrittenLabel, ...]
    line: CategoryLine | None

    @property
    def unsafe(self) -> bool:
        """Whether any label is unsafe."""
        return any(each.label == "unsafe" for each in self.labels)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names in the category line."""
        return tuple(each.name for each in self.line.names) if self.line else ()


class GuardModel(ABC):
    """One family. Stateless, and safe from several threads; text alone, no model and no tokenizer.

    Conformance: tests/guard/conformance.py.
    """

    name: ClassVar[str]
    """As ``judge.family`` names it."""
    title: ClassVar[str]
    """As people call it."""
    features: ClassVar[Features]
    spelling: ClassVar[Spelling]
    categories: ClassVar[tuple[Category, ...]]
    """The built-in taxonomy, in the order of the template."""
    floor: ClassVar[str]
    """Name of the category that is judged under every policy, whatever it says."""
    control_strings: ClassVar[tuple[ControlString, ...]]
    switches: ClassVar[tuple[Switch, ...]]
    """What a server is asked about at start."""
    own_kwargs: ClassVar[frozenset[str]]
    """Keyword arguments of the template that come from the policy alone."""
    revisions: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Hub repositories whose behaviour is known at one commit."""
    begin: ClassVar[str] = ""
    """What a rendered prompt begins with, where there is no tokenizer to ask."""
    stop: ClassVar[tuple[str, ...]] = ()
    """Tokens that end an answer, beside those that a checkpoint names."""
    trace_tags: ClassVar[tuple[str, str]] = ("", "")
    """What a reasoning trace stands between; empty where the family does not reason."""
    no_text: ClassVar[str] = ""
    """Stands for the missing text of an image, where one needs some."""
    most_categories: ClassVar[int] = 1_000
    """Categories that a policy's own taxonomy may have."""
    synonyms: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Usual words for some of the categories, for suggestions where a name is not known."""
    sample_words: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """A word for some of the categories, for judges and tests that play this family."""

    # Which checkpoints it is.

    @abstractmethod
    def recognises(self, model: str) -> bool:
        """Whether a model's name (a hub id, or what a server calls it) says that it is of it."""

    # Names.

    @property
    def names(self) -> tuple[str, ...]:
        """The built-in categories, in order."""
        return tuple(each.name for each in self.categories)

    def canonical(self, name: str) -> str | None:
        """The template's spelling of a built-in category, or None where it is not one.

        Accepts any case, the other known spellings and the bare codes.
        """
        return self._spellings.get(" ".join(name.split()).casefold())

    @cached_property
    def _spellings(self) -> Mapping[str, str]:
        return {
            written: each.name
            for each in self.categories
            for written in (each.name.casefold(), each.code.casefold(), *each.aliases)
        }

    def is_floor(self, name: str) -> bool:
        """Whether a category name means the floor, in any spelling."""
        if self.canonical(name) == self.floor:
            return True
        words = _words(name)
        return any(each in words for each in self._floor_words)

    @cached_property
    def _floor_words(self) -> tuple[str, ...]:
        own = next(each for each in self.categories if each.name == self.floor)
        return tuple(_words(each) for each in (own.name, *own.aliases))

    def severity(self, name: str) -> Severity | None:
        """A built-in category's own severity; None of one that is none."""
        return next((each.severity for each in self.categories if each.name == name), None)

    # What a policy puts in front of the model: pure functions of the policy.

    @abstractmethod
    def builtin_text(self, suppressed: Collection[str]) -> str | None:
        """The built-in taxonomy without its suppressed lines; None where nothing is suppressed."""

    @abstractmethod
    def taxonomy_text(self, categories: Sequence[tuple[str, str]]) -> str:
        """A taxonomy of a policy's own, (name, note) each, with the floor's line."""

    def policy_text(
        self, name: str, description: str, disallowed: Sequence[str], allowed: Sequence[str]
    ) -> str:
        """A free-text policy, with the floor among what is disallowed.

        Raises:
            PolicyError: the family knows none.
        """
        raise PolicyError(
            f"{self.title} cannot judge by free text", fix="Write a taxonomy.", field="custom"
        )

    @abstractmethod
    def floor_missing(self, rubric: Rubric) -> str | None:
        """Why a rubric does not judge the floor; None where it does."""

    # Prompts.

    @abstractmethod
    def template_kwargs(
        self, mode: RubricMode, text: str | None, *, think: bool
    ) -> dict[str, object]:
        """The template's switches for a rubric."""

    @abstractmethod
    def conversations(
        self, user: str, response: str | None, earlier: Sequence[tuple[str, str]]
    ) -> tuple[Conversation, ...]:
        """The prompts that label one event, each to be answered by itself; texts are sanitised.

        ``earlier`` turns (role, text) are context, oldest first.
        """

    def fold(self, earlier: Sequence[tuple[str, str]], judged: str) -> str:
        """Earlier turns and the judged text as one, for a prompt that takes one."""
        return fold_context(earlier, judged)

    def context_format(self) -> str:
        """A sample of how earlier turns stand in a prompt: part of the template's digest."""
        return self.fold([("user", "{earlier}")], "{judged}")

    @abstractmethod
    def check_template(self, render: Render, bos: str) -> str:
        """Refuse a template that lacks what the family needs; return how it differs from the known.

        Raises:
            ConfigurationError: a switch has no effect, or a text is missing.
        """

    @abstractmethod
    def line_tokens(self, mode: RubricMode) -> int:
        """Room for the category line, in tokens."""

    def answer_tokens(self, mode: RubricMode) -> int:
        """Room for a whole answer without its trace, in tokens."""
        return self.line_tokens(mode) + 48

    # Answers.

    @abstractmethod
    def parse(
        self, text: str, labels: Sequence[SideName], rubric: Rubric, *, think: bool = False
    ) -> Answer:
        """Read a whole answer strictly: it is what the grammar says, or it is malformed.

        ``labels`` and ``think`` say what was asked for. Nothing is inferred from the category line.

        Raises:
            Undecided: ``malformed_output``, its detail naming what is wrong (never the text).
        """

    @abstractmethod
    def split_categories(self, line: str, rubric: Rubric) -> tuple[NamedCategory, ...]:
        """The names in a category line, in order, once each, in the rubric's spelling."""

    def split_trace(self, text: str) -> tuple[str | None, str]:
        """The trace before the last closing tag, and what follows it.

        Raises:
            Undecided: ``malformed_output`` where a trace was opened and never closed.
        """
        opening, closing = self.trace_tags
        if not closing:
            return None, text
        before, close, after = text.rpartition(closing)
        if close:
            return before.strip().removeprefix(opening).strip(), after
        if opening in text:
            raise malformed("the trace was never closed")
        return None, text


def _words(text: str) -> str:
    """Its words in compatible forms and small letters, a blank around each."""
    found = re.findall(r"[^\W_]+", normalize("NFKC", text).casefold())
    return f" {' '.join(found)} "


def malformed(detail: str) -> Undecided:
    """An answer that is not what the grammar says."""
    return Undecided(UndecidedReason.MALFORMED_OUTPUT, detail=detail)
