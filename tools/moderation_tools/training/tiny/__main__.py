"""``python -m moderation_tools.training.tiny build|evaluate``: the tiny checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from moderation_tools.training.tiny.build import Steps, build
from moderation_tools.training.tiny.evaluate import evaluate, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit status (1: a row of the table missed its bar)."""
    parser = argparse.ArgumentParser(
        prog="python -m moderation_tools.training.tiny", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="make the checkpoint from nothing")
    make.add_argument("--out", type=Path, required=True, metavar="DIR")
    make.add_argument("--seed", type=int, default=0)
    for stage, default in vars(Steps()).items():
        make.add_argument(f"--{stage}-steps", type=int, default=default, metavar="N")
    measure = commands.add_parser("evaluate", help="measure a checkpoint on fresh cases")
    measure.add_argument("directory", type=Path, metavar="DIR")
    measure.add_argument("--cases", type=int, default=400, help="cases of every kind")
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument("--base", action="store_true", help="leave the adapter out")
    for command in (make, measure):
        command.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    if chosen.command == "build":
        steps = Steps(**{stage: getattr(chosen, f"{stage}_steps") for stage in vars(Steps())})
        build(chosen.out, seed=chosen.seed, steps=steps, report=_report)
        return 0
    rows = evaluate(
        chosen.directory,
        cases=chosen.cases,
        seed=chosen.seed,
        adapter=not chosen.base,
        report=_report,
    )
    print(table(rows))
    return 0 if all(row.passed for row in rows) else 1


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
