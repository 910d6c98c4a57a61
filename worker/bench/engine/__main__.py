"""``python -m worker.bench.engine``: needs torch, transformers, pillow and numpy, nothing else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from worker.bench.engine import against, load, think
from worker.bench.engine.clock import matmul_rate
from worker.bench.engine.model import CONFIGS, random_model
from worker.bench.engine.verdicts import Rig, beside_generate, costs, images
from worker.bench.engine.workload import Lengths, Workload
from worker.judge.engine.forward import Forward
from worker.judge.engine.matrix import maker
from worker.judge.engine.weights import TextWeights

TABLES = ("generate", "costs", "images", "think", "load")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a model, measure, print tables in Markdown."""
    chosen = _parser().parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    dtype = getattr(torch, chosen.dtype)
    model = _checkpoint(chosen) if chosen.model else random_model(chosen.shape, device, dtype)
    if chosen.save:
        from worker.bench.engine.saving import save  # needs tokenizers

        save(model, Path(chosen.save))
        print(f"saved to {chosen.save}")
        return
    rate = matmul_rate(device, dtype, model.config.text_config.hidden_size)
    weights = TextWeights(model, maker(chosen.numerics, device))
    rig = Rig(model, Forward(weights, compiled=chosen.compile))
    parameters = sum(each.numel() for each in model.parameters()) / 1e6
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    threads = torch.get_num_threads()
    print(
        f"{chosen.model or chosen.shape}: {parameters:,.0f} M parameters, "
        f"{name}, {threads} threads, {chosen.dtype}, numerics {chosen.numerics}, "
        f"compile {chosen.compile}, matrix products {rate / 1e9:,.0f} GFLOP/s\n"
    )
    for table in chosen.tables or TABLES:
        if table == "generate" and chosen.numerics != "model":
            continue  # the plain model cannot run then
        _TABLES[table](rig, chosen, rate)
    if chosen.against:
        _against(rig, chosen)


def _checkpoint(chosen: argparse.Namespace) -> Any:
    """A real model in place of random weights; needs the whole worker."""
    from worker.judge.loading import load as load_checkpoint
    from worker.settings import JudgeSettings

    settings = JudgeSettings(model=chosen.model, device=chosen.device, dtype=chosen.dtype)
    return load_checkpoint(settings).model


def _generate(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    _head("policy", "engine verdicts/s", "generate verdicts/s", "ratio", "share of matmul rate")
    for prefix in (320, 1000):
        lengths = Lengths(prefix)
        taken = beside_generate(
            rig, lengths, events=chosen.events, batch=chosen.batch, rounds=chosen.rounds
        )
        engine, other = (chosen.events / taken[n].wall for n in ("engine", "generate"))
        share = engine * rig.flops(lengths) / rate
        _row(f"{prefix:,} tokens", f"{engine:.2f}", f"{other:.2f}", f"{engine / other:.2f} x",
             f"{share:.0%}")  # fmt: skip


def _costs(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    taken = costs(rig, events=chosen.events, batch=chosen.batch, rounds=chosen.rounds)
    first = next(iter(taken.values())).wall
    _head("policies", "verdicts/s", "cost")
    for name, each in taken.items():
        _row(name, f"{chosen.events / each.wall:.2f}", f"{each.wall / first:.2f} x")


def _images(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    taken = images(rig, events=min(chosen.events, 16), rounds=chosen.rounds)
    slowest = taken["one by one"].wall
    _head("images", "events/s", "speed")
    for name, each in taken.items():
        count = min(chosen.events, 16)
        _row(name, f"{count / each.wall:.2f}", f"{slowest / each.wall:.2f} x")


def _think(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    _head("trace", "alone p50", "p95", "x a verdict", "under load p50", "p95", "x a verdict")
    for tokens in chosen.traces:
        one = think.alone(rig, tokens, chosen.rounds)
        many = think.under_load(rig, tokens, chosen.rounds)
        _row(f"{tokens} tokens", *(
            text
            for each in (one, many)
            for text in (f"{each.p50:.0f} ms", f"{each.p95:.0f} ms", f"{each.times:.1f}")
        ))  # fmt: skip


def _load(rig: Rig, chosen: argparse.Namespace, rate: float) -> None:
    work = Workload(rig.vocabulary, Lengths(320))
    rows = work.rows(rig.prefixes(), chosen.events)
    most = load.at_rate(rig, rows, 1e9, chosen.batch).per_second
    _head("load", "verdicts/s", "p50", "p95")
    for percent in (10, 50, 80, 95, 100):
        rate_ = most * percent / 100 if percent < 100 else 1e9
        each = load.at_rate(rig, rows, rate_, chosen.batch)
        _row(f"{percent} %", f"{each.per_second:.2f}", f"{each.p50 * 1e3:.0f} ms",
             f"{each.p95 * 1e3:.0f} ms")  # fmt: skip


def _against(rig: Rig, chosen: argparse.Namespace) -> None:
    """Turns with a server on the same machine; it is idle while the engine runs."""
    _head("policy", "engine verdicts/s", "server verdicts/s", "ratio", "at half of the server's "
          "saturation: engine p50, p95", "server p50, p95")  # fmt: skip
    for prefix in (320, 1000):
        work = Workload(rig.vocabulary, Lengths(prefix))
        rows = work.rows(rig.prefixes(), chosen.events)
        prompts = [policy + own for policy, own in work.contexts(chosen.events)]
        against.saturated(chosen.against, prompts[:16])  # its prefix cache is warm now
        mine, theirs = [], []
        for _ in range(chosen.rounds):
            mine.append(load.at_rate(rig, rows, 1e9, chosen.batch).per_second)
            theirs.append(against.saturated(chosen.against, prompts).per_second)
        engine, server = sorted(mine)[len(mine) // 2], sorted(theirs)[len(theirs) // 2]
        ours = load.at_rate(rig, rows, server / 2, chosen.batch)
        its = against.at_rate(chosen.against, prompts, server / 2)
        _row(f"{prefix:,} tokens", f"{engine:.2f}", f"{server:.2f}", f"{engine / server:.2f} x",
             f"{ours.p50 * 1e3:.0f}, {ours.p95 * 1e3:.0f} ms",
             f"{its.p50 * 1e3:.0f}, {its.p95 * 1e3:.0f} ms")  # fmt: skip


_TABLES = {
    "generate": _generate,
    "costs": _costs,
    "images": _images,
    "think": _think,
    "load": _load,
}


def _head(*columns: str) -> None:
    print()
    _row(*columns)
    _row(*["---"] * len(columns))


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench engine", description=__doc__)
    parser.add_argument("--shape", choices=CONFIGS, default="75m", help="75m (default) or 4b")
    parser.add_argument("--model", help="a checkpoint (tiny, a directory, a hub id) instead")
    parser.add_argument(
        "--random-weights", action="store_true", help="said for clearness: they always are"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, choices=("float32", "bfloat16"))
    parser.add_argument("--numerics", default="model", choices=("model", "int8", "fp8", "weights8"))
    parser.add_argument("--compile", action="store_true", help="fuse element-wise work")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument("--events", type=int, default=32, help="events a turn (default 32)")
    parser.add_argument("--batch", type=int, default=16, help="events a forward (default 16)")
    parser.add_argument("--rounds", type=int, default=3, help="turns; medians are printed")
    parser.add_argument("--traces", type=int, nargs="+", default=[20, 80, 300])
    parser.add_argument("--tables", nargs="+", choices=TABLES, help="default: all")
    parser.add_argument("--save", help="write the checkpoint for another server, and stop")
    parser.add_argument("--against", metavar="URL", help="an OpenAI-compatible server beside it")
    parser.set_defaults(dtype="bfloat16" if torch.cuda.is_available() else "float32")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
