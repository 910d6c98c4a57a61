"""The plain device: the model as transformers runs it, nothing kept between batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from worker.errors import Undecided
from worker.judge.local.batch_scoring import Reader, plain_reader
from worker.judge.local.device import Fault, fault_of, recovers
from worker.judge.local.label_scores import MIN_CONSTANT, Limits
from worker.judge.local.loading import Checkpoint
from worker.judge.local.reasoning import PlainReasoning
from worker.judge.local.replicas import Replicas
from worker.judge.local.requests import ScoreRequest, ScoreResult


class PlainDevice:
    """Implements ``device.Device`` for a loaded checkpoint. Belongs to the device thread."""

    packed = False

    def __init__(
        self, checkpoint: Checkpoint, limits: Limits, *, min_constant: float = MIN_CONSTANT
    ) -> None:
        self._checkpoint, self._limits, self._min_constant = checkpoint, limits, min_constant
        self.replicas = Replicas(checkpoint)
        self._readers: dict[str | None, Reader] = {}
        self._pad: int = checkpoint.tokenizer.pad_token_id or 0

    def read(
        self, adapter: str | None, requests: Sequence[ScoreRequest]
    ) -> list[ScoreResult | Undecided]:
        reader = self._readers.get(adapter)
        if reader is None:
            reader = self._readers[adapter] = plain_reader(
                self.replicas[adapter],
                self._checkpoint.answer,
                self._checkpoint.tokenizer,
                self._limits,
                min_constant=self._min_constant,
            )
        return reader.read(requests)

    def cost(self, request: ScoreRequest) -> int:
        return len(request.context)

    def prefill(self, adapter: str | None, request: ScoreRequest) -> None:
        """The plain model reads every context in one piece."""

    def warm(self, adapter: str | None, prefix: Sequence[int]) -> Iterator[None]:
        """Nothing is kept that could be warm."""
        return iter(())

    def reasoning(self, adapter: str | None) -> PlainReasoning:
        checkpoint = self._checkpoint
        return PlainReasoning(
            self.replicas[adapter], checkpoint.answer, checkpoint.tokenizer, self._pad
        )

    def fault(self, error: Exception) -> Fault:
        return fault_of(error)

    def recover(self) -> bool:
        return recovers(self._checkpoint.model.device)
