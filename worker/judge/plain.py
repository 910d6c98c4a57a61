"""The plain device: one copy of the model per adapter, nothing kept between batches."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from worker.errors import Undecided
from worker.judge.adapters import check_adapter
from worker.judge.device import Fault
from worker.judge.labelling import MIN_CONSTANT, Limits
from worker.judge.loading import Checkpoint, load_model
from worker.judge.reading import Ask, Reading, TraceAsk
from worker.judge.scoring import Reader, plain_reader
from worker.judge.tracing import TraceWriter

_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")
_LOST = ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")


class PlainDevice:
    """Implements ``device.Device`` for a loaded checkpoint. Belongs to the device thread."""

    def __init__(
        self, checkpoint: Checkpoint, limits: Limits, *, min_constant: float = MIN_CONSTANT
    ) -> None:
        self._checkpoint, self._limits, self._min_constant = checkpoint, limits, min_constant
        self._models: dict[str | None, Any] = {None: checkpoint.model}
        self._readers: dict[str | None, Reader] = {}
        self._pad: int = checkpoint.tokenizer.pad_token_id or 0

    def add_adapter(self, adapter: str) -> None:
        """Load a replica of the model with this adapter merged; blocking, off the device thread.

        Raises:
            ConfigurationError: the adapter is not there or was made for another base.
        """
        directory, base = Path(adapter), self._checkpoint.model
        check_adapter(base, directory, self._checkpoint.source.location)
        self._models[adapter] = load_model(
            self._checkpoint.source, directory, base.device, base.dtype
        )

    def has_adapter(self, adapter: str | None) -> bool:
        return adapter in self._models

    def read(self, adapter: str | None, asks: Sequence[Ask]) -> list[Reading | Undecided]:
        reader = self._readers.get(adapter)
        if reader is None:
            reader = self._readers[adapter] = plain_reader(
                self._models[adapter],
                self._checkpoint.answer,
                self._checkpoint.tokenizer,
                self._limits,
                min_constant=self._min_constant,
            )
        return reader.read(asks)

    def think(self, adapter: str | None, asks: Sequence[TraceAsk]) -> TraceWriter:
        return TraceWriter(
            self._models[adapter],
            self._checkpoint.answer,
            self._checkpoint.tokenizer,
            asks,
            self._pad,
        )

    def fault(self, error: Exception) -> Fault:
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

    def recover(self) -> bool:
        """Give cached memory back, and ask the device for one sum."""
        gc.collect()
        device = self._checkpoint.model.device
        try:
            if device.type == "cuda":
                torch.cuda.empty_cache()
            return float(torch.ones(2, device=device).sum()) == 2.0
        except RuntimeError:
            return False
