"""``doctor --memory``: what settings and policies take on a card, what fits, and what to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from worker.errors import ConfigurationError
from worker.judge.engine.backend import BackendName
from worker.judge.engine.backends import choose, triton_there
from worker.judge.local.loading import choose_device, choose_dtype, resolve
from worker.judge.local.memory import (
    CUDA_CONTEXT,
    GIVES_WAY,
    Card,
    Demand,
    Plan,
    Policy,
    card_of,
    changes,
    explain,
    fitted,
    parse_size,
    plan,
    process_bytes,
)
from worker.judge.local.prefix_lengths import config_of, estimated, prefix_lengths
from worker.judgement import Rubric
from worker.policy.directory import policy_files
from worker.policy.parse import load_policy
from worker.policy.passes import builtin_rubric, passes
from worker.settings import JudgeSettings, Settings

_TOKENS = 1024
"""The largest values that fit are looked for in steps of so many tokens."""
_MOST_BATCH = 131_072
_MOST_POLICIES = 10_000
TYPICAL_POLICY = 1000
"""Tokens of a policy of one's own, where there is none to take the length from."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the plan. ``counted`` is false for moments narrower than the widest."""

    part: str
    bytes: int
    detail: str
    counted: bool


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """A setting, the value it has, and one that fits together with the others."""

    setting: str
    now: str
    to: str


class Largest(msgspec.Struct, frozen=True, kw_only=True):
    """The largest value of each with all else as it is, tokens in steps of 1,024; null where not
    even the least fits."""

    max_batch_tokens: int | None
    max_context: int | None
    policies: int | None


class MemoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of one deployment on one card; bytes are bytes.

    ``fitted`` are settings that nobody set and that the worker lowers at start; ``changes`` are
    needed where that is not enough.
    """

    model: str
    dtype: str
    numerics: str
    card: str
    card_bytes: int
    needed_bytes: int
    fits: bool
    lines: tuple[Line, ...]
    largest: Largest
    fitted: tuple[Advice, ...]
    changes: tuple[Advice, ...]
    notes: tuple[str, ...]
    summary: str


def memory_report(
    settings: Settings, *, card: str | None = None, event_tokens: int | None = None
) -> MemoryReport:
    """The plan of these settings on a card (``8GiB``), or on the device of ``judge.device``.

    Raises:
        ConfigurationError: the model, a policy or the size of the card cannot be used.
    """
    judge = settings.judge
    if judge.backend != "local":
        raise ConfigurationError(f"judge.backend is {judge.backend}: no model takes memory here")
    where, dtype = _where(judge, card)
    source = resolve(judge)
    config, read = config_of(source)
    notes = [] if read else [f"{source.id} is not on this machine: its known shape is planned"]
    asked = _policies(settings, notes)
    rubrics = [rubric for _, rubric in asked.prefixes]
    lengths = prefix_lengths(source, config, rubrics) if read else None
    if lengths is None:
        notes.append("policies' tokens are estimated: there is no tokenizer on this machine")
        lengths = [estimated(rubric) for rubric in rubrics]
    if whole := lengths.count(0):
        notes.append(f"{whole} policies are computed with every event: this tokenizer joins them")
    pairs = zip(asked.prefixes, lengths, strict=True)
    wanted = Demand(
        settings=judge,
        config=config,
        dtype=choose_dtype(dtype, choose_device("cpu")),
        backend=_backend(judge, card, where),
        host=where.host,
        policies=tuple(Policy(tokens, adapter) for (adapter, _), tokens in pairs),
        adapters=len({adapter for adapter, _ in asked.prefixes if adapter is not None}),
        think_tokens=asked.think_tokens,
        other=process_bytes(judge, _buffers(settings)) if where.host else CUDA_CONTEXT,
    )
    if event_tokens is not None:
        wanted = replace(wanted, event_tokens=event_tokens)
    made = fitted(wanted, where)
    if made.recomputed:
        notes.append(
            f"{made.recomputed} policies exceed judge.prefix_bytes and are computed for every batch"
        )
    return _report(source.id, dtype, judge, made, notes)


class _Asked(msgspec.Struct, frozen=True):
    """Distinct prefixes, (adapter, rubric) each, and the longest trace that a policy may write."""

    prefixes: tuple[tuple[str | None, Rubric], ...]
    think_tokens: int


def _where(judge: JudgeSettings, card: str | None) -> tuple[Card, str]:
    """The memory to plan with, and the format the model is loaded in there."""
    if card is None:
        device = choose_device(judge.device)
        dtype = str(choose_dtype(judge.dtype, device)).removeprefix("torch.")
        return card_of(device), dtype
    host = judge.device == "cpu"
    auto = "float32" if host else "bfloat16"
    name = "the memory of --card" if host else "the card"
    return Card(name, parse_size(card), host), auto if judge.dtype == "auto" else judge.dtype


def _backend(judge: JudgeSettings, card: str | None, where: Card) -> BackendName:
    """What computes attention there; on a card that is not here, as far as this machine can say."""
    if card is None:
        return choose(judge.attention, choose_device(judge.device))
    if where.host:
        return "cpu" if judge.attention == "auto" else choose(judge.attention, choose_device("cpu"))
    return "triton" if triton_there() and judge.attention != "reference" else "reference"


def _policies(settings: Settings, notes: list[str]) -> _Asked:
    directory: Path = settings.policies.directory
    files = policy_files(directory) if directory.is_dir() else ()
    if not files:
        notes.append(f"no policy in {directory}: the stock taxonomy alone is planned")
        return _Asked(((None, builtin_rubric(())),), 0)
    prefixes: dict[tuple[str | None, str], tuple[str | None, Rubric]] = {}
    think_tokens = 0
    for file in files:
        policy = load_policy(file)
        if policy.think.when != "never":
            think_tokens = max(think_tokens, policy.think.max_tokens)
        for each in passes(policy):
            prefixes[each.adapter, each.rubric.sha256] = (each.adapter, each.rubric)
    return _Asked(tuple(prefixes.values()), think_tokens)


def _buffers(settings: Settings) -> int:
    """What the worker keeps beside the judge at most."""
    store, stream = settings.store, settings.stream
    return store.inflight_bytes + store.cache_bytes + stream.max_bytes


def _report(
    model: str, dtype: str, judge: JudgeSettings, made: Plan, notes: list[str]
) -> MemoryReport:
    settings = made.demand.settings
    wrong = {} if made.fits else changes(made)
    lowered = {
        name: (str(getattr(judge, name)), str(getattr(settings, name)))
        for name in dict.fromkeys(name for name, _ in GIVES_WAY)
    }
    return MemoryReport(
        model=model,
        dtype=dtype,
        numerics=settings.numerics,
        card=made.card.name,
        card_bytes=made.card.bytes,
        needed_bytes=made.needed,
        fits=made.fits,
        lines=tuple(
            Line(
                part=part.name,
                bytes=part.bytes,
                detail=part.detail,
                counted=not part.moment or part is made.widest,
            )
            for part in made.parts
        ),
        largest=_largest_of(made),
        fitted=_advice(lowered),
        changes=_advice(wrong),
        notes=tuple(notes),
        summary="it fits" if made.fits else explain(made),
    )


def _advice(pairs: dict[str, tuple[str, str]]) -> tuple[Advice, ...]:
    return tuple(
        Advice(setting=f"judge.{name}", now=now, to=to)
        for name, (now, to) in pairs.items()
        if now != to
    )


def _largest_of(made: Plan) -> Largest:
    """How far each setting may grow alone."""
    demand, card = made.demand, made.card
    known = demand.policies or ()
    typical = Policy(max((each.tokens for each in known), default=TYPICAL_POLICY))
    one = demand.profile.prefix(typical.tokens)
    room = made.usable - made.needed
    held = sum(demand.profile.prefix(each.tokens) for each in known)

    def over(**values: int) -> int:
        made = plan(demand.with_settings(**values), card)
        return made.needed - made.usable

    policies = min(_MOST_POLICIES, len(known) + room // one) if room >= 0 else None
    if policies is None and made.needed - held <= made.usable:
        policies = (made.usable - made.needed + held) // one or None
    positions = demand.config.text_config.max_position_embeddings
    return Largest(
        max_batch_tokens=_largest(lambda n: over(max_batch_tokens=n), _MOST_BATCH),
        max_context=_largest(lambda n: over(max_context=n), positions),
        policies=policies,
    )


def _largest(over: Callable[[int], int], most: int) -> int | None:
    """The largest multiple of a thousand tokens up to ``most`` that is over by nothing.

    What is needed grows about evenly, so the next guess lies on the line through the ends.
    """
    low, high = 1, max(1, most // _TOKENS)
    under, above = over(low * _TOKENS), 0
    if under > 0:
        return None
    probe = min(high, 8)
    while low < high:
        found = over(probe * _TOKENS)
        if found <= 0:
            low, under = probe, found
            probe = min(high, 2 * probe) if not above else probe
        else:
            high, above = probe - 1, found
        if above and low < high:
            share = under / (under - above)
            probe = min(high, max(low + 1, low + int(share * (high + 1 - low))))
    return low * _TOKENS
