"""The engine as the scheduler's device: one engine for each adapter, over one checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from worker.clock import Clock
from worker.errors import Undecided
from worker.judge.engine.branch_scorer import LabelTree
from worker.judge.engine.chunked_prefill import LongContext
from worker.judge.engine.compile_warmup import fuse, graphs
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.model import TextWeights
from worker.judge.engine.prefix_cache import ImageKeys, Prefixes
from worker.judge.engine.quantization import maker
from worker.judge.engine.reasoning import PackedTraces
from worker.judge.local.batch_scoring import Reader
from worker.judge.local.category_decoding import Namer
from worker.judge.local.device import Fault, fault_of, recovers
from worker.judge.local.label_scores import MIN_CONSTANT, Limits
from worker.judge.local.loading import Checkpoint
from worker.judge.local.reasoning import TraceRules
from worker.judge.local.replicas import Replicas
from worker.judge.local.requests import Ask, Reading, TraceAsk
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
        weights = TextWeights(model, maker(settings.numerics, checkpoint.model.device))
        self.forward = Forward(weights, compiled=settings.compile)
        self.prefixes = Prefixes(self.forward, settings.prefix_bytes)
        self.images = ImageEmbeddings(model, settings.image_bytes)
        self.image_keys = ImageKeys(self.prefixes, settings.image_keys_bytes)
        self.rules = TraceRules(answer, tokenizer)
        tree = LabelTree(
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

    def _split(self, asks: Sequence[Ask]) -> Iterable[list[int]]:
        """Asks in their order, cut where rows or computed tokens reach the limits of a forward."""
        part: list[int] = []
        tokens = 0
        for index, ask in enumerate(asks):
            own = cost(ask)
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

    def cost(self, ask: Ask) -> int:
        return cost(ask)

    def fuse(self, clock: Clock) -> None:
        """Compile what every adapter's engine shares, before the device is served."""
        began = clock.monotonic()
        fuse(self.engine(None).forward)
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

    def read(self, adapter: str | None, asks: Sequence[Ask]) -> list[Reading | Undecided]:
        engine = self.engine(adapter)
        try:
            return engine.reader.read(asks)
        finally:
            engine.account()

    def prefill(self, adapter: str | None, ask: Ask) -> LongContext | None:
        piece = self._settings.prefill_tokens
        if cost(ask) <= piece:
            return None
        engine = self.engine(adapter)
        return LongContext(engine.forward, engine.prefixes, engine.images, ask, piece)

    def warm(self, adapter: str | None, prefix: Sequence[int]) -> Iterator[None]:
        return self.engine(adapter).prefixes.pinning(tuple(prefix))

    def traces(self, adapter: str | None) -> PackedTraces:
        engine = self.engine(adapter)
        return PackedTraces(engine.forward, engine.prefixes, engine.images, engine.rules)

    def fault(self, error: Exception) -> Fault:
        return fault_of(error)

    def recover(self) -> bool:
        return recovers(self._checkpoint.model.device)


def cost(ask: Ask | TraceAsk) -> int:
    """Tokens that an ask takes room for: its own, without those that an earlier pass left. Those of
    an image that is known are counted, since its keys are in the batch all the same."""
    known = len(ask.row.ids) if ask.row is not None else 0
    own: int = len(ask.context) - ask.context.policy
    return max(own - known, 1)
