"""A policy as the worker holds it: parsed, validated, hashed (format: docs/policies.md)."""

from __future__ import annotations

from typing import Literal

import msgspec

from worker.contracts.event import Judged
from worker.contracts.verdict import Action, Severity

ThinkWhen = Literal["never", "always", "unsafe", "uncertain"]
OnUndecided = Literal["hold", "block", "pass"]
Expectation = Literal["safe", "unsafe", "undecided"]
PrefilterDecide = Literal["unsafe", "reason"]
PhraseMatch = Literal["exact", "normalised", "loose"]


class BuiltinPass(msgspec.Struct, frozen=True, kw_only=True):
    """Judging against the model's own 24 categories, less the suppressed ones."""

    enabled: bool = True
    suppress: tuple[str, ...] = ()
    severity: dict[str, Severity] = {}


class CustomCategory(msgspec.Struct, frozen=True, kw_only=True):
    """One category of a policy's own taxonomy."""

    name: str
    note: str = ""
    severity: Severity = "high"


class CustomPass(msgspec.Struct, frozen=True, kw_only=True):
    """Judging against the policy's own words: free text lists, or a taxonomy (never both)."""

    disallowed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    taxonomy: tuple[CustomCategory, ...] = ()
    severity: Severity = "high"


class Think(msgspec.Struct, frozen=True, kw_only=True):
    """When a reasoning trace is written. ``band`` is the score range called uncertain."""

    when: ThinkWhen = "never"
    band: tuple[float, float] = (0.35, 0.65)
    max_tokens: int = 400
    deadline_ms: int = 5_000


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From which score (P(unsafe), 0 to 1) a side counts as unsafe."""

    unsafe: float = 0.5


class Actions(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about unsafe content: by severity, else the default."""

    default: Action = "hold"
    severity: dict[Severity, Action] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """The next version, judged in the shadow on a sample of the topic's events."""

    version: int
    file: str
    sample: float = 0.1


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """An executable example. ``checkpoint`` names the model family it holds for; None is any."""

    text: str
    response: str | None = None
    image: str | None = None
    expect: Expectation
    categories: tuple[str, ...] = ()
    checkpoint: str | None = None


class PrefilterList(msgspec.Struct, frozen=True, kw_only=True):
    """Phrases or images that a policy lists itself, and what a hit means.

    ``loaded`` are the entries of the file. Images are hex digits: 64 of a SHA-256, 16 of a pHash.
    """

    name: str
    decide: PrefilterDecide
    category: str | None = None
    severity: Severity | None = None
    phrases: tuple[str, ...] = ()
    phrases_file: str | None = None
    match: PhraseMatch = "normalised"
    images: tuple[str, ...] = ()
    images_file: str | None = None
    distance: int = 4
    loaded: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[str, ...]:
        """Everything listed, here and in the file."""
        return (*self.phrases, *self.images, *self.loaded)

    @property
    def of_images(self) -> bool:
        """Whether it lists images; phrases otherwise."""
        return bool(self.images or self.images_file)


class Prefilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for before the model is asked; ``loaded`` are the lines of ``allow_file``."""

    lists: tuple[PrefilterList, ...] = ()
    allow: tuple[str, ...] = ()
    allow_file: str | None = None
    judge_too: bool = False
    loaded: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One validated policy; ``sha256`` is of its canonical form, ``file`` says where it lies.

    ``adapter_sha256`` is of the adapter's files as they were when the policy was read.
    """

    name: str
    version: int
    owner: str
    topics: tuple[str, ...]
    description: str = ""
    builtin: BuiltinPass = BuiltinPass()
    custom: CustomPass | None = None
    adapter: str | None = None
    adapter_sha256: str | None = None
    think: Think = Think()
    thresholds: Thresholds = Thresholds()
    actions: Actions = Actions()
    on_undecided: OnUndecided = "hold"
    judged: Judged = "turn"
    prefilter: Prefilter | None = None
    cache: bool = True
    languages: tuple[str, ...] = ()
    candidate: Candidate | None = None
    examples: tuple[Example, ...] = ()
    sha256: str = ""
    file: str = ""
