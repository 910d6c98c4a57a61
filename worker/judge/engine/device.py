"""The engine as the scheduler's device: one engine for each adapter, over one checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from worker.clock import Clock
from worker.errors import Undecided
from worker.judge.engine.backends import choose, make
from worker.judge.engine.branch_scorer import BranchScorer
from worker.judge.engine.chunked_prefill import ChunkedPrefill
from worker.judge.engine.compile_warmup import compile_ahead, graphs
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.model import TextWeights
from worker.judge.engine.prefix_cache import ImageKVCache, PrefixCache
from worker.judge.engine.quantization import quantizer, refuse_unsupported
from worker.judge.engine.reasoning import ReasoningBatch
from worker.judge.local.batch_scoring import Reader
from worker.judge.local.category_decoding import Namer
from worker.judge.local.device import Fault, fault_of, recovers
from worker.judge.local.label_scores import MIN_CONSTANT, Limits
from worker.judge.local.loading import Checkpoint
from worker.judge.local.reasoning import ReasoningRules
from worker.judge.local.replicas import Replicas
from worker.judge.local.requests import ReasoningRequest, ScoreRequest, ScoreResult
from worker.judge.statistics import Kept
from worker.settings import JudgeSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute


class Engine:
    """Everything that belongs to one set of weights."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: object,
        settings: JudgeSettings,
        min_constant: float,
    ) -> None:
        answer, tokenizer = checkpoint.answer, checkpoint.tokenizer
        limits = Limits(settings.max_batch, settings.max_batch_tokens)
        device, dtype = checkpoint.model.device, checkpoint.model.dtype
        refuse_unsupported(settings.numerics, device)
        weights = TextWeights(model, quantizer(settings.numerics, device, dtype))
        name = choose(settings.attention, device)
        self.forward = Forward(weights, make(name, weights, compiled=settings.compile))
        self.prefixes = PrefixCache(self.forward, settings.prefix_bytes)
        self.images = ImageEmbeddings(model, settings.image_bytes)
        self.image_keys = ImageKVCache(self.prefixes, settings.image_keys_bytes)
        self.rules = ReasoningRules(answer, tokenizer)
        tree = BranchScorer(
            self.forward, self.prefixes, self.images, self.image_keys, answer, tokenizer,
            min_constant=min_constant,
        )  # fmt: skip
        self.reader = Reader(tree, Namer(answer, tokenizer, limits), self._split)
        self._limits = limits

    def account(self) -> None:
        """Count what was reused since the last time."""
        for kind, kept in (
            ("policy", self.prefixes),
            ("image", self.images),
            ("image_keys", self.image_keys),
        ):
            labels = {Attribute.KIND: kind}
            instruments.reuse.add(kept.hits, {**labels, Attribute.RESULT: "hit"})
            instruments.reuse.add(kept.misses, {**labels, Attribute.RESULT: "miss"})
            kept.hits = kept.misses = 0

    def _split(self, requests: Sequence[ScoreRequest]) -> Iterable[list[int]]:
        """Requests in their order, cut where a forward's sequences or computed tokens are full."""
        part: list[int] = []
        tokens = 0
        for index, request in enumerate(requests):
            own = cost(request)
            if part and (len(part) == self._limits.rows or tokens + own > self._limits.tokens):
                yield part
                part, tokens = [], 0
            part.append(index)
            tokens += own
        if part:
            yield part


class EngineDevice:
    """Implements ``device.Device`` for a loaded checkpoint. Belongs to the device thread."""

    packed = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: JudgeSettings,
        *,
        min_constant: float = MIN_CONSTANT,
    ) -> None:
        self._checkpoint, self._settings = checkpoint, settings
        self._min_constant = min_constant
        self.replicas = Replicas(checkpoint)
        self._engines: dict[str | None, Engine] = {}
        self.engine(None)
        instruments.reuse_bytes.watch(self._kept_bytes)
        self._compile_s = 0.0

    def engine(self, adapter: str | None) -> Engine:
        """The engine under an adapter, made at first use."""
        found = self._engines.get(adapter)
        if found is None:
            model = self.replicas[adapter]
            found = Engine(self._checkpoint, model, self._settings, self._min_constant)
            self._engines[adapter] = found
        return found

    def cost(self, request: ScoreRequest) -> int:
        return cost(request)

    def compile_ahead(self, clock: Clock) -> None:
        """Compile what every adapter's engine shares, before the device is served."""
        began = clock.monotonic()
        compile_ahead(self.engine(None).forward)
        self._compile_s = clock.monotonic() - began
        instruments.graphs.watch(lambda: [(graphs(), {})])

    def kept(self) -> Kept:
        """Policies and images of all adapters; each adapter has the whole budgets."""
        engines = list(self._engines.values())
        return Kept(
            policies=sum(len(engine.prefixes) for engine in engines),
            policy_bytes=sum(engine.prefixes.bytes for engine in engines),
            policy_max_bytes=self._settings.prefix_bytes * len(engines),
            images=sum(len(engine.images) for engine in engines),
            image_bytes=sum(engine.images.bytes for engine in engines),
            image_max_bytes=self._settings.image_bytes * len(engines),
            image_keys=sum(len(engine.image_keys) for engine in engines),
            image_keys_bytes=sum(engine.image_keys.bytes for engine in engines),
            image_keys_max_bytes=self._settings.image_keys_bytes * len(engines),
            graphs=graphs() if self._settings.compile else 0,
            compile_s=self._compile_s,
        )

    def _kept_bytes(self) -> list[tuple[int, dict[str, str]]]:
        kept = self.kept()
        sizes = {
            "policy": kept.policy_bytes,
            "image": kept.image_bytes,
            "image_keys": kept.image_keys_bytes,
        }
        return [(size, {Attribute.KIND: kind}) for kind, size in sizes.items()]

    def read(
        self, adapter: str | None, requests: Sequence[ScoreRequest]
    ) -> list[ScoreResult | Undecided]:
        engine = self.engine(adapter)
        try:
            return engine.reader.read(requests)
        finally:
            engine.account()

    def prefill(self, adapter: str | None, request: ScoreRequest) -> ChunkedPrefill | None:
        chunk = self._settings.prefill_tokens
        if cost(request) <= chunk:
            return None
        engine = self.engine(adapter)
        return ChunkedPrefill(engine.forward, engine.prefixes, engine.images, request, chunk)

    def warm(self, adapter: str | None, prefix: Sequence[int]) -> Iterator[None]:
        return self.engine(adapter).prefixes.pinning(tuple(prefix))

    def reasoning(self, adapter: str | None) -> ReasoningBatch:
        engine = self.engine(adapter)
        return ReasoningBatch(engine.forward, engine.prefixes, engine.images, engine.rules)

    def fault(self, error: Exception) -> Fault:
        return fault_of(error)

    def recover(self) -> bool:
        return recovers(self._checkpoint.model.device)


def cost(request: ScoreRequest | ReasoningRequest) -> int:
    """Tokens that a request takes room for: its own, without those that an earlier pass left.

    Those of an image that is known are counted, since its keys are in the batch all the same.
    """
    known = len(request.known.ids) if request.known is not None else 0
    own: int = len(request.context) - request.context.policy
    return max(own - known, 1)
