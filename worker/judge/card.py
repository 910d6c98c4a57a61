"""How much memory there is to plan with: of a GPU, or of this machine or container."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch

from worker.errors import ConfigurationError
from worker.judge.engine.plan import CUDA_CONTEXT, GIB

_UNITS = {"kib": 1024, "mib": 1024**2, "gib": GIB, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1}
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MEMINFO = Path("/proc/meminfo")


class Card(NamedTuple):
    """``bytes`` to plan with; ``host`` where it is the memory of the CPU."""

    name: str
    bytes: int
    host: bool


def parse_size(text: str) -> int:
    """Bytes of ``8GiB``, ``24 GB``, ``512MiB``; a number alone is GiB.

    Raises:
        ConfigurationError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = _UNITS.get(match[2] or "gib") if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise ConfigurationError(f"{text!r} is no size; write for example 8GiB or 24GB")
    return int(float(match[1]) * unit)


def card_of(device: torch.device) -> Card:
    """What a device offers now: a GPU what is free on it, a CPU all of this machine or container.

    The context that asking makes on a GPU is given back to what is free: the plan counts it.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return Card(name, min(total, free + CUDA_CONTEXT), False)
    return Card("this machine's memory", host_bytes(), True)


def host_bytes() -> int:
    """Memory of this machine, or what its control group allows of it."""
    total = re.search(r"MemTotal:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"))
    assert total is not None
    limits = [int(total[1]) * 1024]
    for file in _CGROUP:
        text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
