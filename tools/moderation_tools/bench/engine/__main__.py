"""``python -m moderation_tools.bench.engine``: torch, transformers, pillow, numpy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from moderation_tools.bench.engine import clock
from moderation_tools.bench.engine.model import CONFIGS, random_model
from moderation_tools.bench.engine.tables import TABLES, beside_server
from moderation_tools.bench.engine.verdicts import Rig
from worker.judge.engine.backend import Attention
from worker.judge.engine.backends import choose, make
from worker.judge.engine.compile_warmup import compile_ahead
from worker.judge.engine.forward import Forward
from worker.judge.engine.model import TextWeights
from worker.judge.engine.quantization import Numerics, fp8_pays, quantizer

FULL = {"events": 126, "batch": 42, "together": 128}
"""Events a turn, a forward and a step on a GPU: forwards of about 8,000 tokens."""
SMALL = {"events": 32, "batch": 8, "together": 8}
"""The same on a CPU, whose caches a few thousand tokens fill."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a model, measure, print tables in Markdown."""
    chosen = _parser().parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    clock.use(chosen.clock)
    device = torch.device(chosen.device)
    for name, count in (FULL if device.type == "cuda" else SMALL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, count)
    dtype = getattr(torch, chosen.dtype)
    model = _checkpoint(chosen) if chosen.model else random_model(chosen.shape, device, dtype)
    if chosen.save:
        from moderation_tools.bench.engine.saving import save

        save(model, Path(chosen.save))
        print(f"saved to {chosen.save}")
        return
    parameters = sum(each.numel() for each in model.parameters()) / 1e6
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{chosen.model or chosen.shape}: {parameters:,.0f} M parameters, {where}, "
        f"{torch.get_num_threads()} threads, {chosen.dtype}, compile {chosen.compile}, "
        f"{chosen.clock} time, "
        f"torch {torch.__version__}"
    )
    for numerics in chosen.numerics or _all_that_pay(device):
        _measure(model, numerics, chosen)


def _all_that_pay(device: torch.device) -> list[Numerics]:
    return ["model", "fp8"] if fp8_pays(device) else ["model"]


def _measure(model: Any, numerics: Numerics, chosen: argparse.Namespace) -> None:
    """All tables in one kind of numerics; eight bits leave the plain model without its weights."""
    hidden = model.config.text_config.hidden_size
    backend = choose(chosen.attention, model.device)
    rate = clock.matmul_rate(model.device, model.dtype, hidden, numerics)
    print(f"\nnumerics {numerics}: matrix products {rate / 1e9:,.0f} GFLOP/s, attention {backend}")
    weights = TextWeights(model, quantizer(numerics, model.device, model.dtype))
    rig = Rig(model, Forward(weights, make(backend, weights, compiled=chosen.compile)))
    if chosen.compile:
        compile_ahead(rig.forward)  # as the worker does before it serves
    for table in chosen.tables or (() if chosen.against else TABLES):
        TABLES[table](rig, chosen, rate)
    if chosen.against:
        beside_server(rig, chosen)


def _checkpoint(chosen: argparse.Namespace) -> Any:
    """A real model in place of random weights; needs the whole worker."""
    from worker.judge.local.loading import load as load_checkpoint
    from worker.settings import JudgeSettings

    settings = JudgeSettings(model=chosen.model, device=chosen.device, dtype=chosen.dtype)
    return load_checkpoint(settings).model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench engine", description=__doc__)
    parser.add_argument("--shape", choices=CONFIGS, default="75m", help="75m (default), 4b, small")
    parser.add_argument("--model", help="a checkpoint (tiny, a directory, a hub id) instead")
    parser.add_argument(
        "--random-weights", action="store_true", help="said for clearness: they always are"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, choices=("float32", "bfloat16"))
    parser.add_argument(
        "--numerics",
        nargs="+",
        choices=get_args(Numerics),
        help="one after the other, model first; default: model, and fp8 on a GPU that has it",
    )
    parser.add_argument("--attention", choices=get_args(Attention), default="auto")
    parser.add_argument("--compile", action="store_true", help="fuse element-wise work")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument(
        "--clock",
        choices=clock.CLOCKS,
        default="wall",
        help="cpu: this process's CPU time, for a machine that is not idle (with --threads 1); "
        "latency at loads and beside a server is by the wall all the same",
    )
    parser.add_argument("--events", type=int, help="events a turn (default 32; 126 on a GPU)")
    parser.add_argument("--batch", type=int, help="events a forward (default 8; 42 on a GPU)")
    parser.add_argument("--together", type=int, help="traces a step (default 8; 128 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3, help="turns; medians are printed")
    parser.add_argument("--turns", type=int, default=10, help="turns of every trace")
    parser.add_argument("--traces", type=int, nargs="+", default=[20, 80, 300])
    parser.add_argument(
        "--steady", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="marks, in events"
    )
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, help="default: all, or none with --against"
    )
    parser.add_argument("--save", help="write the checkpoint for another server, and stop")
    parser.add_argument("--against", metavar="URL", help="an OpenAI-compatible server beside it")
    parser.set_defaults(dtype="bfloat16" if torch.cuda.is_available() else "float32")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
