"""``doctor --memory``: what settings and policies take on a card, what fits, and what to change."""

from __future__ import annotations

from pathlib import Path

import msgspec

from worker.errors import ConfigurationError
from worker.judge.engine.plan import Demand, Plan, Policy, more, plan
from worker.judge.engine.plan_advice import Change, Room, changes, room
from worker.judge.local.loading import choose_device, choose_dtype, resolve
from worker.judge.local.memory import Card, card_of, demand, explain, parse_size
from worker.judge.local.prefix_lengths import config_of, estimated, prefix_lengths
from worker.judgement import Rubric
from worker.policy.directory import policy_files
from worker.policy.parse import load_policy
from worker.policy.passes import builtin_rubric, passes
from worker.settings import JudgeSettings, Settings

_BYTES = {"float32": 4, "bfloat16": 2}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the plan. ``counted`` is false for moments narrower than the widest."""

    part: str
    bytes: int
    detail: str
    counted: bool


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """A setting to change, with a value that fits together with the others."""

    setting: str
    now: str
    to: str


class Largest(msgspec.Struct, frozen=True, kw_only=True):
    """The largest value of each with all else as it is; null where not even the least fits."""

    max_batch_tokens: int | None
    max_context: int | None
    policies: int | None


class MemoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of one deployment on one card; bytes are bytes."""

    model: str
    dtype: str
    numerics: str
    card: str
    card_bytes: int
    needed_bytes: int
    fits: bool
    lines: tuple[Line, ...]
    largest: Largest
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
    lengths = prefix_lengths(source, config, rubrics, judge.guard) if read else None
    if lengths is None:
        notes.append("policies' tokens are estimated: there is no tokenizer on this machine")
        lengths = [estimated(rubric) for rubric in rubrics]
    if whole := lengths.count(0):
        notes.append(f"{whole} policies are computed with every event: this tokenizer joins them")
    pairs = zip(asked.prefixes, lengths, strict=True)
    wanted = demand(
        judge,
        config,
        _BYTES[dtype],
        host=where.host,
        policies=tuple(Policy(tokens, adapter) for (adapter, _), tokens in pairs),
        adapters=len({adapter for adapter, _ in asked.prefixes if adapter is not None}),
        think_tokens=asked.think_tokens,
        buffers=_buffers(settings),
    )
    if event_tokens is not None:
        wanted = more(wanted, event_tokens=event_tokens)
    made = plan(wanted, where.bytes)
    if made.recomputed:
        notes.append(
            f"{made.recomputed} policies exceed judge.prefix_bytes and are computed for every batch"
        )
    return _report(source.id, dtype, made, where, notes)


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


def _policies(settings: Settings, notes: list[str]) -> _Asked:
    directory: Path = settings.policies.directory
    files = policy_files(directory) if directory.is_dir() else ()
    if not files:
        notes.append(f"no policy in {directory}: the stock taxonomy alone is planned")
        return _Asked(((None, builtin_rubric(())),), 0)
    prefixes: dict[tuple[str | None, str], tuple[str | None, Rubric]] = {}
    think_tokens = 0
    for file in files:
        policy = load_policy(file, settings.judge.guard)
        if policy.think.when != "never":
            think_tokens = max(think_tokens, policy.think.max_tokens)
        for each in passes(policy):
            prefixes[each.adapter, each.rubric.sha256] = (each.adapter, each.rubric)
    return _Asked(tuple(prefixes.values()), think_tokens)


def _buffers(settings: Settings) -> int:
    """What the worker keeps beside the judge at most."""
    store, stream = settings.store, settings.stream
    return store.inflight_bytes + store.cache_bytes + stream.max_bytes


def _report(model: str, dtype: str, made: Plan, card: Card, notes: list[str]) -> MemoryReport:
    asked: Demand = made.demand
    space: Room = room(asked, card.bytes)
    wrong: tuple[Change, ...] = () if made.fits else changes(asked, card.bytes)
    return MemoryReport(
        model=model,
        dtype=dtype,
        numerics=asked.body,
        card=card.name,
        card_bytes=card.bytes,
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
        largest=Largest(
            max_batch_tokens=space.max_batch_tokens,
            max_context=space.max_context,
            policies=space.policies,
        ),
        changes=tuple(Advice(setting=c.setting, now=c.now, to=c.to) for c in wrong),
        notes=tuple(notes),
        summary="it fits" if made.fits else explain(made, card),
    )
