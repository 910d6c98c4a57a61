"""The tables that ``bench engine`` prints, in Markdown."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable

from moderation_tools.bench.engine import against, load, rates, steady, think
from moderation_tools.bench.engine.against import Served
from moderation_tools.bench.engine.verdicts import Rig, beside_generate, costs, images
from moderation_tools.bench.engine.workload import Lengths, Workload
from worker.judge.engine.batch import InputSequence

PREFIXES = (320, 1000)
"""Tokens of the policies: the built-in taxonomy's, and a long one of a user's own."""
LEAST = 20
"""Events of one latency figure at least."""
PICTURES = 16
"""Image events in one turn at most."""


def generate(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """The engine beside ``transformers.generate``; in other numerics the plain model cannot run."""
    if rig.forward.weights.layers[0].qkv.kind != "model":
        return
    _head("policy", "engine verdicts/s", "generate verdicts/s", "ratio", "share of matmul rate")
    for prefix in PREFIXES:
        lengths = Lengths(prefix)
        taken = beside_generate(
            rig, lengths, events=chosen.events, batch=chosen.batch, rounds=chosen.rounds
        )
        engine, other = (chosen.events / taken[n] for n in ("engine", "generate"))
        share = engine * rig.flops(lengths) / rate
        _row(f"{prefix:,} tokens", f"{engine:.2f}", f"{other:.2f}", f"{engine / other:.2f} x",
             f"{share:.0%}")  # fmt: skip


def throughput(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """Events per second of every kind of event, and the memory that this took."""
    _head("event", "events/s", "share of matmul rate")
    for prefix in PREFIXES:
        lengths = Lengths(prefix)
        found = rates.text(rig, lengths, chosen.events, chosen.batch, chosen.rounds)
        share = found * rig.flops(lengths) / rate
        _row(f"text, a policy of {prefix:,} tokens", f"{found:.2f}", f"{share:.0%}")
    mixed = rates.text(rig, Lengths(320, 50), chosen.events, chosen.batch, chosen.rounds)
    _row("text, 50 policies of 320 mixed", f"{mixed:.2f}", "")
    count = min(chosen.batch, PICTURES)
    _row("an image not seen before", f"{rates.image(rig, count, chosen.rounds):.2f}", "")
    for tokens in chosen.traces:
        thought = rates.thought(rig, tokens, chosen.together, chosen.rounds)
        _row(
            f"THINK, a trace of {tokens} tokens, {chosen.together} at a time", f"{thought:.2f}", ""
        )
    print(f"\nmemory at most: {rates.most_memory(rig.forward.weights.device) / 2**30:.2f} GiB")


def cost(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """What many policies, and long ones, add to an event."""
    taken = costs(rig, events=chosen.events, batch=chosen.batch, rounds=chosen.rounds)
    first = next(iter(taken.values()))
    _head("policies", "verdicts/s", "cost")
    for name, each in taken.items():
        _row(name, f"{chosen.events / each:.2f}", f"{each / first:.2f} x")


def pictures(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """Images one by one, together, seen before, and seen before under the same policy."""
    count = min(chosen.batch, PICTURES)
    taken = images(rig, events=count, rounds=chosen.rounds)
    slowest = taken["one by one"]
    _head("images", "events/s", "speed")
    for name, each in taken.items():
        _row(name, f"{count / each:.2f}", f"{slowest / each:.2f} x")


def thinking(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """What a trace adds to a verdict, in milliseconds and in verdicts."""
    _head("trace", "alone p50", "p95", "x a verdict", "under load p50", "p95", "x a verdict")
    for tokens in chosen.traces:
        one = think.alone(rig, tokens, chosen.turns)
        many = think.under_load(rig, tokens, chosen.turns)
        _row(f"{tokens} tokens", *(
            text
            for each in (one, many)
            for text in (f"{each.p50:.0f} ms", f"{each.p95:.0f} ms", f"{each.times:.1f}")
        ))  # fmt: skip


def latency(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """Latency of verdicts at shares of the most that the engine gives."""
    work = Workload(rig.vocabulary, Lengths(320))
    rows = work.rows(rig.prefixes(), 2 * chosen.events)
    most = load.at_rate(rig, rows, load.ALL_AT_ONCE, chosen.batch).per_second
    _head("load", "verdicts/s", "p50", "p95")
    for percent in (10, 25, 50, 80, 95, 100):
        some = rows[: max(LEAST, len(rows) * percent // 100)]  # a low rate takes its time
        each = load.at_rate(rig, some, most * percent / 100, chosen.batch)
        _row(f"{percent} %", f"{each.per_second:.2f}", f"{each.p50 * 1e3:.0f} ms",
             f"{each.p95 * 1e3:.0f} ms")  # fmt: skip


def level(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    """Whether an event costs what it cost at first, and memory stays where it was.

    A model too small to matter, so that what is measured is everything around it, and once is
    enough.
    """
    if rig.forward.weights.layers[0].qkv.kind != "model":
        return
    _head("events", "CPU an event", "against the first", "resident memory", "growth")
    first: steady.Mark | None = None
    for mark in steady.marks(rig.forward.weights.device, chosen.steady):
        first = first or mark
        _row(f"{mark.events:,}", f"{mark.cpu * 1e6:,.0f} us", f"{mark.cpu / first.cpu:.2f} x",
             f"{mark.resident / 2**20:,.0f} MiB",
             f"{mark.resident / first.resident - 1:+.1%}")  # fmt: skip


def beside_server(rig: Rig, chosen: argparse.Namespace) -> None:
    """Turns with a server on the same machine; it is idle while the engine runs."""
    _head("policy", "engine verdicts/s", "server verdicts/s", "ratio", "at half of the server's "
          "saturation: engine p50, p95", "server p50, p95")  # fmt: skip
    for prefix in PREFIXES:
        # Events that no call ever sent: the server keeps whole prompts, and would know them.
        work = Workload(rig.vocabulary, Lengths(prefix), seed=secrets.randbits(31))
        policies = rig.prefixes()

        def prompts(work: Workload = work) -> list[tuple[int, ...]]:
            return [policy + own for policy, own in work.contexts(chosen.events)]

        rows = work.rows(policies, chosen.events)

        def engine_at(rate: float, rows: list[InputSequence] = rows) -> Served:
            # Each runs a little first: who was idle finds its memory cold.
            load.at_rate(rig, rows[: chosen.batch], load.ALL_AT_ONCE, chosen.batch)
            return load.at_rate(rig, rows, rate, chosen.batch)

        def wake_server() -> None:
            against.saturated(chosen.against, prompts()[:16])

        mine, theirs = [], []
        for _ in range(chosen.rounds):
            mine.append(engine_at(load.ALL_AT_ONCE).per_second)
            wake_server()
            theirs.append(against.saturated(chosen.against, prompts()).per_second)
        engine, server = sorted(mine)[len(mine) // 2], sorted(theirs)[len(theirs) // 2]
        ours = engine_at(server / 2)
        wake_server()
        its = against.at_rate(chosen.against, prompts(), server / 2)
        _row(f"{prefix:,} tokens", f"{engine:.2f}", f"{server:.2f}", f"{engine / server:.2f} x",
             f"{ours.p50 * 1e3:.0f}, {ours.p95 * 1e3:.0f} ms",
             f"{its.p50 * 1e3:.0f}, {its.p95 * 1e3:.0f} ms")  # fmt: skip


Table = Callable[[Rig, argparse.Namespace, float], None]

TABLES: dict[str, Table] = {
    "generate": generate,
    "rates": throughput,
    "costs": cost,
    "images": pictures,
    "think": thinking,
    "load": latency,
    "steady": level,
}


def _head(*columns: str) -> None:
    print()
    _row(*columns)
    _row(*["---"] * len(columns))


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)
