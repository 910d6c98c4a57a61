"""Events per second of every kind of event, the device never idle."""

from __future__ import annotations

import resource
import sys

import torch

from moderation_tools.bench.engine.clock import in_turns
from moderation_tools.bench.engine.think import write
from moderation_tools.bench.engine.verdicts import Rig, images, verdict_call
from moderation_tools.bench.engine.workload import Lengths, Workload


def text(rig: Rig, lengths: Lengths, events: int, batch: int, rounds: int) -> float:
    """Verdicts on text per second."""
    rows = Workload(rig.vocabulary, lengths).rows(rig.prefixes(), events)
    return events / in_turns({"text": verdict_call(rig, rows, batch)}, rounds)["text"]


def image(rig: Rig, events: int, rounds: int) -> float:
    """Verdicts per second on events with an image each that was not seen before."""
    return events / images(rig, events=events, rounds=rounds, ways=["together"])["together"]


def thought(rig: Rig, tokens: int, together: int, rounds: int) -> float:
    """Events per second that get a verdict and then a trace of ``tokens``, ``together`` at a time.

    All end at once here, and as many begin: what a lane does that is always full.
    """
    rows = Workload(rig.vocabulary, Lengths(320)).rows(rig.prefixes(), together)

    def call() -> None:
        kept = rig.forward.run(rows, keep=[True] * together).kept
        write(rig, [own for own in kept if own is not None], tokens)

    return together / in_turns({"think": call}, rounds)["think"]


def most_memory(device: torch.device) -> int:
    """Bytes that were in use at most: on a GPU of tensors, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
