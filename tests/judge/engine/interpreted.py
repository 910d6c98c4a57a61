"""The Triton kernels under Triton's interpreter, held to the plain model in fp32.

A program of its own: interpreter and compiler exclude each other in one process, and a wrong
address is a segmentation fault. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.judge.engine.test_logits import branched, known_before, largest_difference
from tests.support import oracle
from tests.support.engine_cases import WINDOW, Source, small_window, text
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.decode_batch import DecodeBatch
from worker.judge.engine.device import Engine, EngineDevice
from worker.judge.engine.sequences import sequences_for
from worker.judge.engine.triton_backend import Tile, TritonBackend
from worker.judge.local.loading import Checkpoint, load
from worker.settings import JudgeSettings

TILE = Tile(queries=32, keys=64, warps=4, stages=1)
ROWS = 64
"""Tokens of a program between products: the interpreter's cost is a program's, not its tile's."""


def opened(directory: Path) -> tuple[Checkpoint, Engine]:
    """The plain model, and an engine over a copy of it with the Triton backend."""
    settings = JudgeSettings(model=str(directory), attention="reference")
    device = EngineDevice(load(settings), settings, min_constant=0.0)
    engine = device.engine(None)
    engine.forward.backend = TritonBackend(engine.forward.weights, tile=TILE, rows=ROWS)
    return load(settings), engine


def scoring(plain: Checkpoint, engine: Engine, count: int) -> dict[str, Any]:
    """Batches of 1 to 50 policies with branches, images, pasts, on both sides of the window."""
    source, worst, done = Source(plain, 1), 0.0, 0
    seen = dict.fromkeys(("long", "image", "past", "branches", "mixed"), 0)
    launches, layers = 0, engine.forward.weights.shape.layers
    while done < count:
        batch = source.cases(source.rng.choice((1, 2, 12, 60)))
        known = [known_before(engine, case, source.rng) for case in batch]
        whole = sequences_for(
            [case.context for case in batch], known, engine.prefixes, engine.images
        )
        sequences = [branched(source.rng, each) for each in whole]
        before = engine.forward.backend.launches  # type: ignore[attr-defined]
        logits = engine.forward.run(sequences).logits
        after = engine.forward.backend.launches  # type: ignore[attr-defined]
        launches = max(launches, after - before)
        for case, each, got in zip(batch, sequences, logits, strict=True):
            worst = max(worst, largest_difference(plain.model, case, each, got))
            seen["long"] += len(case.context) > WINDOW
            seen["image"] += case.context.pixels is not None
            seen["past"] += each.past is not None
            seen["branches"] += bool(each.branches)
        seen["mixed"] = max(seen["mixed"], len({id(each.prefix) for each in sequences}))
        done += len(batch)
    return {"cases": done, "worst": worst, "launches": launches / layers, **seen}


def decoding(plain: Checkpoint, engine: Engine, count: int) -> dict[str, Any]:
    """Sequences of many policies in slots: several steps, with and without draft tokens."""
    source, worst = Source(plain, 2), 0.0
    contexts = [source.case().context for _ in range(count)]
    whole = sequences_for(contexts, [None] * count, engine.prefixes, engine.images)
    kept = engine.forward.run(whole, keep=[True] * count).kept
    batch, rows = DecodeBatch(engine.forward, least=count), list(contexts)
    for own in kept:
        assert own is not None
        batch.add(own, 40)
    for step in range(4):
        new = [text(source.rng, 5) if (n + step) % 5 else () for n in range(count)]
        drafts = [
            [text(source.rng, 6) for _ in range(n % 3)] if new[n] else [] for n in range(count)
        ]
        states = batch.step(new, drafts)
        rows = [row.extended(own) for row, own in zip(rows, new, strict=True)]
        for n, state in enumerate(states):
            if not new[n]:
                continue
            logits, place = engine.forward.logits(state), len(new[n])
            alone = oracle.logits(plain.model, rows[n])[-len(new[n]) :]
            worst = max(worst, float((logits[:place] - alone).abs().max()))
            for draft in drafts[n]:
                behind = oracle.logits(plain.model, rows[n], draft)[-len(draft) :]
                found = logits[place : place + len(draft)]
                worst = max(worst, float((found - behind).abs().max()))
                place += len(draft)
    return {"steps": 4 * count, "worst_decoding": worst}


def padding(engine: Engine) -> dict[str, Any]:
    """Blocks of row -1, as a graph's bucket has them, touch nothing."""
    backend = engine.forward.backend
    assert isinstance(backend, TritonBackend)
    sequence = InputSequence(tuple(range(30, 60)), wanted=(29,))
    plain = engine.forward.run([sequence]).logits[0]
    blocks = backend._blocks

    def more(asked: Any) -> Any:
        found = blocks(asked)
        return type(found)(
            found.tile, [*found.rows, -1, -1], [*found.firsts, 0, 64],
            found.starts, found.counts, found.tokens,
        )  # fmt: skip

    backend._blocks = more  # type: ignore[method-assign]
    padded = engine.forward.run([sequence]).logits[0]
    backend._blocks = blocks  # type: ignore[method-assign]
    return {"padding": float((plain - padded).abs().max())}


def main() -> None:
    torch.set_num_threads(1)
    count, slots = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        plain, engine = opened(small_window(Path(directory)))
        found = scoring(plain, engine, count) | decoding(plain, engine, slots) | padding(engine)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
