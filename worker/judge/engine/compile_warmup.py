"""Compile warm-up: every graph of ``judge.compile`` that traffic needs, before the first event.

Inductor makes one graph of a layer's half for any number of tokens, and another for a single token,
which is what a decoding step of one event is. Met in traffic, each would hold everybody up for as
long as a compiler runs, beyond the deadline of a batch.
"""

from __future__ import annotations

import torch

from worker.errors import ConfigurationError
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.forward import Forward

SIZES = (40, 5, 1)
"""Tokens in a forward: many, so few that CUDA's int8 product is padded, and one."""


def compile_ahead(forward: Forward) -> None:
    """Compile both halves of a layer; blocking, for as long as it takes.

    Raises:
        ConfigurationError: this machine cannot compile them.
    """
    try:
        for count in SIZES:
            forward.run([InputSequence(ids=(0,) * count, wanted=(count - 1,))])
    except (torch._dynamo.exc.TorchDynamoException, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"judge.compile: torch cannot compile here ({type(error).__name__}: {first}); install "
            "a C++ compiler, or set judge.compile to false"
        ) from error


def graphs() -> int:
    """Graphs compiled in this process so far; what grows after the start was met in traffic."""
    counted: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return counted
