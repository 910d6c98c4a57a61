"""What would fit: the largest value of each setting alone, and which settings to lower together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.judge.engine.plan import Demand, Policy, more, plan

TYPICAL_POLICY = 1000
"""Tokens of a policy of one's own, where there is none to take the length from."""
_MANY = 10_000
_MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class Change:
    """A setting, the value it has, and the largest that fits with its companions."""

    setting: str
    now: str
    to: str

    def __str__(self) -> str:
        return f"{self.setting} {self.to} (is {self.now})"


@dataclass(frozen=True)
class _Lever:
    """A setting with its values from the present one down, and what each makes of a demand."""

    setting: str
    now: str
    values: tuple[str, ...]
    demands: tuple[Callable[[Demand], Demand], ...]


@dataclass(frozen=True)
class Room:
    """The largest values that fit, each with everything else as it is; None: not even the least."""

    max_batch_tokens: int | None
    max_context: int | None
    policies: int | None


def room(demand: Demand, card: int) -> Room:
    """How far each may grow."""
    lengths = [policy.tokens for policy in demand.policies]
    typical = Policy(max(lengths, default=TYPICAL_POLICY))

    def fits(**changes: object) -> bool:
        return plan(more(demand, **changes), card).fits

    def with_policies(count: int) -> bool:
        extra = (typical,) * max(0, count - len(lengths))
        policies = (*demand.policies[:count], *extra)
        wider = max(demand.prefix_bytes, sum(demand.kept(each) for each in policies))
        return fits(policies=policies, prefix_bytes=wider)

    return Room(
        max_batch_tokens=_largest(lambda n: fits(max_batch_tokens=n), _MOST_TOKENS),
        max_context=_largest(lambda n: fits(max_context=n), demand.sizes.positions),
        policies=_largest(with_policies, _MANY),
    )


def changes(demand: Demand, card: int) -> tuple[Change, ...]:
    """The fewest settings, but at least two, that together make a plan fit.

    Those with the largest effect, with the largest values that fit; empty where no values do.
    """
    levers = sorted(_levers(demand), key=lambda lever: _effect(demand, lever), reverse=True)
    for count in range(2, len(levers) + 1):
        for chosen in itertools.combinations(levers, count):
            lowest = [len(lever.values) - 1 for lever in chosen]
            if plan(_applied(demand, chosen, lowest), card).fits:
                return _raised(demand, card, chosen, lowest)
    return ()


def _raised(
    demand: Demand, card: int, levers: tuple[_Lever, ...], steps: list[int]
) -> tuple[Change, ...]:
    """Back up from the lowest values in turn, each at most to the one below its present."""
    raising = True
    while raising:
        raising = False
        for place in reversed(range(len(levers))):
            higher = [step - (n == place) for n, step in enumerate(steps)]
            if higher[place] > 0 and plan(_applied(demand, levers, higher), card).fits:
                steps, raising = higher, True
    return tuple(
        Change(lever.setting, lever.now, lever.values[step])
        for lever, step in zip(levers, steps, strict=True)
    )


def _effect(demand: Demand, lever: _Lever) -> int:
    lowest = plan(lever.demands[-1](demand), 0)
    return plan(demand, 0).needed - lowest.needed


def _applied(demand: Demand, levers: tuple[_Lever, ...], steps: list[int]) -> Demand:
    for lever, step in zip(levers, steps, strict=True):
        demand = lever.demands[step](demand)
    return demand


def _levers(demand: Demand) -> Iterator[_Lever]:
    numbers = (
        ("max_batch_tokens", demand.max_batch_tokens, 512),
        ("prefill_tokens", demand.prefill_tokens, 256),
        ("max_batch", demand.max_batch, 1),
        ("max_context", demand.max_context, 2048),
        ("prefix_bytes", demand.prefix_bytes, 1),
        ("image_bytes", demand.image_bytes, 16 * 1024**2),
        ("image_keys_bytes", demand.image_keys_bytes, 0),
    )
    for name, now, least in numbers:
        if now > least:
            yield _halving(name, now, least)
    if demand.think_tokens and demand.think_lane > 1:
        yield _halving("think_lane", demand.think_lane, 1)
    if demand.body == "model":
        yield _Lever(
            "judge.numerics",
            "model",
            ("model", "weights8"),
            (lambda d: d, lambda d: more(d, body="weights8")),
        )
    if demand.element == 4:
        yield _Lever(
            "judge.dtype",
            "float32",
            ("float32", "bfloat16"),
            (lambda d: d, lambda d: more(d, element=2)),
        )


def _halving(name: str, now: int, least: int) -> _Lever:
    values = [now]
    while values[-1] > least:
        values.append(max(values[-1] // 2, least))

    def setter(value: int) -> Callable[[Demand], Demand]:
        return lambda demand: more(demand, **{name: value})

    return _Lever(
        f"judge.{name}", str(now), tuple(str(v) for v in values), tuple(setter(v) for v in values)
    )


def _largest(fits: Callable[[int], bool], most: int) -> int | None:
    """The largest value up to ``most`` that fits, where smaller ones take no more."""
    if not fits(1):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
