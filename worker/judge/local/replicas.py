"""The model under each adapter: a replica of its own, with the adapter merged into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.judge.local.loading import Checkpoint, load_model
from worker.judge.local.lora import check_adapter, read_adapter


class Replicas:
    """Models by adapter; None is the checkpoint as it was loaded."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._models: dict[str | None, Any] = {None: checkpoint.model}
        self.digests: dict[str, str] = {}
        """Of the adapters as they were read and merged."""

    def add(self, adapter: str) -> None:
        """Load a replica with this adapter merged; blocking, off the device thread.

        Raises:
            ConfigurationError: the adapter is not there, incomplete, or was made for another base.
        """
        read, base = read_adapter(Path(adapter)), self._checkpoint.model
        check_adapter(base, read, self._checkpoint.source.location)
        self._models[adapter] = load_model(
            self._checkpoint.source,
            read,
            base.device,
            base.dtype,
            self._checkpoint.matrices,
        )
        self.digests[adapter] = read.digest

    def __contains__(self, adapter: str | None) -> bool:
        return adapter in self._models

    def __getitem__(self, adapter: str | None) -> Any:
        return self._models[adapter]
