"""Verdict v1: what one event was judged to be, and where the judgement came from."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Outcome = Literal["safe", "unsafe", "undecided"]
Action = Literal["allow", "flag", "hold", "block"]
Label = Literal["safe", "unsafe"]
Severity = Literal["low", "medium", "high", "critical"]
Kind = Literal["automatic", "review", "replay", "shadow"]
DecidedBy = Literal["judge", "prefilter", "cache", "floor"]
FoundIn = Literal["user", "response", "image"]


class SourceRef(msgspec.Struct, frozen=True, kw_only=True):
    """The input record."""

    topic: str
    """Input topic."""
    partition: int
    """Partition of the topic."""
    offset: int
    """Offset in the partition."""
    timestamp: int
    """The record's timestamp, milliseconds since the epoch."""


class SideVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the exchange."""

    label: Label
    """What the side was judged to be."""
    score: float
    """P(unsafe), 0 to 1, from the label logits."""


class CategoryVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A category the model named, or that a threshold of its own made count."""

    name: str
    """Name of the category, as the taxonomy or the policy spells it."""
    source: Literal["builtin", "custom"]
    """Whether the model's own taxonomy or the policy's names it."""
    severity: Severity = "high"
    """As the policy grades it."""
    score: float | None = None
    """Probability of the name, where it is known."""


class ImageVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One image of the event: its judgement, or the reason code why there is none."""

    uri: str
    """As the event gave it."""
    sha256: str | None = None
    """Digest of the bytes that were judged."""
    label: Label | None = None
    """What the image was judged to be, together with the text."""
    score: float | None = None
    """P(unsafe), 0 to 1."""
    error: str | None = None
    """An ``undecided_reason`` code where the image could not be judged."""
    seen: int | None = None
    """Views judged: moments of an animation, the whole and parts of a large image, on light and on
    dark ground; null where the image was not judged."""
    total: int | None = None
    """Views that it takes to see everything; where more than ``seen``, the event is not safe."""
    scale: float | None = None
    """Pixels of the image for one of the model's, in the finest views: where it is over 1, details
    of a few such pixels were too small to be seen."""


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """THINK: at most three sentences here, the whole trace only in quarantine."""

    mode: Literal["always", "unsafe", "uncertain"]
    """When the policy asks for thinking."""
    trace: str | None = None
    """At most three sentences; null where there is no trace."""
    skipped: str | None = None
    """Code of why a wanted trace is missing or did not count."""


class PrefilterHit(msgspec.Struct, frozen=True, kw_only=True):
    """That the event met an entry of one of the policy's own lists; never which entry."""

    list: str
    """Name of the list."""
    decide: Literal["unsafe", "reason"]
    """Whether a hit decides, or only stands here while the model judges."""
    category: str | None
    """Category that the list names, if any."""
    found_in: FoundIn
    """Where it was found."""
    image: int | None = None
    """Which image of the judged turn, from 0."""


class PolicyRef(msgspec.Struct, frozen=True, kw_only=True):
    """The policy judged against."""

    name: str
    """Name of the policy."""
    version: int
    """Version its owner gave it."""
    sha256: str
    """Digest of its canonical form."""


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, in which numbers, with which prompt template."""

    id: str
    """Repository or directory of the model."""
    revision: str
    """Commit of the repository, or digest of the directory."""
    adapter: str | None
    """Digest of the LoRA adapter applied, if any."""
    template_sha256: str
    """Digest of the prompt template and of how earlier turns are folded in."""
    numerics: str
    """Numbers the model computed in, e.g. ``bfloat16``."""


class ContextUse(msgspec.Struct, frozen=True, kw_only=True):
    """Earlier messages, which are context and not judged."""

    included: int = 0
    """Messages folded in."""
    omitted: int = 0
    """Messages left out for the token budget."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went, in milliseconds."""

    queue: float = 0.0
    """Waiting for the device."""
    fetch: float = 0.0
    """Fetching images."""
    judge: float = 0.0
    """On the device."""
    total: float = 0.0
    """From read to decided."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer to one event."""

    verdict_id: str
    """Equal for equal input record, event id and kind, for ever: deduplicate by it. That of a
    shadow verdict names its policy's digest too."""
    event_id: str
    """The event's ``id``."""
    conversation_id: str
    """The event's ``conversation_id``; the record key."""
    tenant: str | None
    """The event's ``tenant``."""
    source: SourceRef
    """The input record."""
    kind: Kind = "automatic"
    """Whether the worker, a person or a replay decided, or a candidate policy was tried."""
    supersedes: str | None = None
    """Id of the verdict this one replaces."""
    outcome: Outcome
    """``undecided`` is never safe: see ``undecided_reason``."""
    action: Action
    """What the policy says to do."""
    user: SideVerdict | None
    """The judged user message; null where it was not judged."""
    response: SideVerdict | None
    """The judged response; null where there is none."""
    categories: tuple[CategoryVerdict, ...] = ()
    """Categories that count."""
    suppressed: tuple[str, ...] = ()
    """Categories found that the policy suppresses."""
    images: tuple[ImageVerdict, ...] = ()
    """Images of the judged turn, in order."""
    reasoning: Reasoning | None = None
    """Null where the policy never thinks; with neither trace nor ``skipped`` where none was called
    for."""
    prefilter: tuple[PrefilterHit, ...] = ()
    """What the policy's own lists found."""
    undecided_reason: str | None = None
    """A stable code; new ones may be added. Also where something unsafe was found beside a part
    that could not be judged."""
    undecided_detail: str | None = None
    """What the code is about: a field, a length, never content."""
    neutralised: tuple[str, ...] = ()
    """Control strings of the prompt template found in the event and defused."""
    folded: tuple[str, ...] = ()
    """Classes of characters by which words of the judged turn were read as a person sees them."""
    context: ContextUse = ContextUse()
    """What became of the earlier messages."""
    decided_by: DecidedBy = "judge"
    """What the outcome rests on."""
    cached: bool = False
    """Whether everything that was judged had been judged before, in an equal event."""
    attempts: int = 1
    """How often the record was tried; more than 1 after a crash."""
    policy: PolicyRef
    """What was judged against."""
    model: ModelRef
    """What judged."""
    shadow_of: str | None = None
    """Under a candidate policy: id of the verdict that counts."""
    timings_ms: Timings = Timings()
    """Where the time went."""
    judged_at: str
    """When it was decided, RFC 3339 in UTC."""


def verdict_id(
    topic: str,
    partition: int,
    offset: int,
    event_id: str,
    kind: Kind,
    *,
    policy_sha256: str = "",
) -> str:
    """The deterministic identity of a verdict: equal input and kind give an equal id, for ever.

    ``policy_sha256`` tells apart what several policies say of one event in one kind.
    """
    # Length-prefixed, so that no two different tuples share one byte string.
    where = f"{len(topic)}:{topic}{partition}:{offset}:"
    joined = f"{where}{len(event_id)}:{event_id}{kind}"
    if policy_sha256:
        joined += f":{policy_sha256}"
    return hashlib.sha256(joined.encode()).hexdigest()[:32]
