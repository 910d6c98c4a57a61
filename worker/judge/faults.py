"""What a failed device call means, and whether the device still computes."""

from __future__ import annotations

import gc

import torch

from worker.judge.device import Fault

_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")
_LOST = ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")


def fault_of(error: Exception) -> Fault:
    """The kind of a failure, told from torch's exceptions and messages."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        mark in text for mark in _MEMORY
    ):
        return "memory"
    if isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(mark in text for mark in _LOST)
    ):
        return "lost"
    return "other"


def recovers(device: torch.device) -> bool:
    """Give cached memory back, and ask the device for one sum."""
    gc.collect()
    try:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return float(torch.ones(2, device=device).sum()) == 2.0
    except RuntimeError:
        return False
