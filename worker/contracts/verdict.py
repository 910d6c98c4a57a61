"""Verdict v1: what one event was judged to be, and where the judgement came from."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Outcome = Literal["safe", "unsafe", "undecided"]
Action = Literal["allow", "flag", "hold", "block"]
Label = Literal["safe", "unsafe"]
Severity = Literal["low", "medium", "high", "critical"]
Kind = Literal["automatic", "review", "replay"]
DecidedBy = Literal["judge", "prefilter", "cache", "floor"]


class SourceRef(msgspec.Struct, frozen=True, kw_only=True):
    """The input record: coordinates and its timestamp (ms since the epoch)."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class SideVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the exchange. ``score`` is P(unsafe), 0 to 1, from the label logits."""

    label: Label
    score: float


class CategoryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A category the model named, or that a threshold of its own made count."""

    name: str
    source: Literal["builtin", "custom"]
    severity: Severity = "high"
    score: float | None = None


class ImageVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One image of the event: its judgement, or the reason code why there is none."""

    uri: str
    sha256: str | None = None
    label: Label | None = None
    score: float | None = None
    error: str | None = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """THINK: at most three sentences here, the whole trace only in quarantine."""

    mode: Literal["always", "unsafe", "uncertain"]
    trace: str | None = None
    skipped: str | None = None


class PolicyRef(msgspec.Struct, frozen=True, kw_only=True):
    """The policy judged against; ``sha256`` is of its canonical form."""

    name: str
    version: int
    sha256: str


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, in which numbers, with which prompt template."""

    id: str
    revision: str
    adapter: str | None
    template_sha256: str
    numerics: str


class ContextUse(msgspec.Struct, frozen=True, kw_only=True):
    """How many earlier messages were folded in, and how many left out for the token budget."""

    included: int = 0
    omitted: int = 0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds: waiting for the device, fetching images, on the device, read to decided."""

    queue: float = 0.0
    fetch: float = 0.0
    judge: float = 0.0
    total: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer to one event. ``judged_at`` is RFC 3339 in UTC."""

    verdict_id: str
    event_id: str
    conversation_id: str
    tenant: str | None
    source: SourceRef
    kind: Kind = "automatic"
    supersedes: str | None = None
    outcome: Outcome
    action: Action
    user: SideVerdict | None
    response: SideVerdict | None
    categories: tuple[CategoryVerdict, ...] = ()
    suppressed: tuple[str, ...] = ()
    images: tuple[ImageVerdict, ...] = ()
    reasoning: Reasoning | None = None
    undecided_reason: str | None = None
    undecided_detail: str | None = None
    neutralised: tuple[str, ...] = ()
    context: ContextUse = ContextUse()
    decided_by: DecidedBy = "judge"
    cached: bool = False
    attempts: int = 1
    policy: PolicyRef
    model: ModelRef
    shadow_of: str | None = None
    timings_ms: Timings = Timings()
    judged_at: str


def verdict_id(topic: str, partition: int, offset: int, event_id: str, kind: Kind) -> str:
    """The deterministic identity of a verdict: equal input and kind give an equal id, for ever."""
    parts = (topic, str(partition), str(offset), event_id, kind)
    # Length-prefixed, so that no two different tuples share one byte string.
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:32]
