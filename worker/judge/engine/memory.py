"""What the engine takes of a device: its own code, run on tensors that have sizes and no storage.

A model of the same config is made on torch's meta device, and the forwards that serve traffic run
over it while the bytes of every tensor are counted until it is freed. So nothing about the engine
is written down here a second time: what it allocates tomorrow is what is counted tomorrow.

A profile runs three layers (one of each kind, and the last, which asks for few of its tokens): the
others take the same room one after the other, and leave nothing but their keys and values.
"""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from worker.judge.engine.backend import BackendName
from worker.judge.engine.backends import make
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.decode_batch import MAX_DRAFT_TOKENS, DecodeBatch
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import TOWER_BATCH
from worker.judge.engine.kv_cache import KVSegment, PrefixKV, SequenceKV, kv_bytes
from worker.judge.engine.model import TextWeights
from worker.judge.engine.prefix_cache import PrefixCache
from worker.judge.engine.quantization import Numerics, quantizer

META = torch.device("meta")

SCORED = 16
"""Assumed tokens of an event whose logits are read: its answer's constant text, both branches."""
ANSWER = 128
"""Assumed tokens of an answer that is written out."""


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Use as a context manager; ``peak`` is the most that was alive at one moment, in bytes.

    What an operator allocates for itself and frees before it returns is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __enter__(self) -> Allocations:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = {id(storage) for storage in _storages((*args, *(kwargs or {}).values()))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages((result,)):
            if id(storage) not in given and storage not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, bytes_: int) -> None:
        self.now -= bytes_


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value.untyped_storage()
        elif isinstance(value, list | tuple):
            yield from _storages(value)


class _FlashAttention(TorchFunctionMode):
    """The vision tower's attention as every real device runs it: without its scores. Torch has no
    such kernel for tensors without storage."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class MemoryProfile:
    """Bytes that one model takes under the engine, part by part. Every method measures once."""

    def __init__(
        self, config: Any, dtype: torch.dtype, numerics: Numerics, backend: BackendName
    ) -> None:
        self.config = config
        with META:
            model = Gemma3ForConditionalGeneration(config).to(dtype).eval()
        self._model = model
        self._whole = TextWeights(model, quantizer(numerics, META, dtype))
        few = _few_layers(self._whole)
        self._forward = Forward(few, make(backend, few))
        self._few = few
        self.moment: Callable[..., int] = cache(self._moment)

    # What is held for good.

    def weights(self) -> dict[str, int]:
        """Text body, embedding and head, vision tower, projector: the bytes of each."""
        whole, model = self._whole, self._model
        linears = [
            m for each in whole.layers for m in (each.qkv, each.out, each.gate_up, each.down)
        ]
        matrices = sum(_bytes(each.weight, each.scale) for each in linears)
        text = model.model.language_model
        projections = {
            id(parameter)
            for module in text.layers.modules()
            if isinstance(module, torch.nn.Linear)
            for parameter in module.parameters()
        }
        norms = [*text.layers.parameters(), *text.norm.parameters()]
        gains = [gain for each in whole.layers for gain in vars(each.norms).values()]
        head = {id(each): each for each in (*text.embed_tokens.parameters(), model.lm_head.weight)}
        return {
            "text body": matrices
            + _bytes(*(each for each in norms if id(each) not in projections))
            + _bytes(*gains, whole.final_norm),
            "embedding": _bytes(*head.values()),
            "vision tower": _bytes(*model.model.vision_tower.parameters()),
            "projector": _bytes(*model.model.multi_modal_projector.parameters()),
        }

    def prefix(self, tokens: int) -> int:
        """A policy's keys and values."""
        return kv_bytes(self._whole, tokens, self._whole.shape.window - 1)

    def known(self, tokens: int) -> int:
        """Own tokens of a sequence, kept to go on from."""
        chunk = InputSequence((0,) * tokens)
        (kept,) = self._forward.run([chunk], keep=[True]).kept
        assert kept is not None
        return self._in_all_layers(kept.trimmed(self._few).kv.layers)

    def lane(self, sequences: int, tokens: int, room: int) -> int:
        """Slots for so many traces of ``tokens`` own ones with ``room`` for more."""
        batch = DecodeBatch(self._forward)
        for _ in range(sequences):
            batch.add(self._sequence(tokens), room)
        return self._in_all_layers(batch.slots.layers)

    # Moments: what is alive beside that while something is computed.

    def _moment(self, name: str, *sizes: int) -> int:
        measures: dict[str, Callable[..., int]] = {
            "batch": self._batch,
            "decoding": self._decoding,
            "policy": self._policy,
            "images": self._images,
        }
        count = Allocations()
        missing = measures[name](count, *sizes)
        return count.peak + missing

    def _batch(
        self, count: Allocations, sequences: int, tokens: int, longest: int, policy: int, past: int
    ) -> int:
        """A batch of events that is scored and kept: layers, masks, keys and values, logits.

        ``tokens`` in all of which one sequence has ``longest``, behind a policy and a past.
        """
        lengths = _lengths(sequences, tokens, longest)
        prefix = PrefixKV((0,) * policy, self._segment(policy)) if policy else None
        first = self._sequence(past, prefix) if past else None
        scored = [
            InputSequence(
                (0,) * each, prefix, first if n == 0 else None,
                wanted=tuple(range(max(0, each - SCORED), each)),
            )
            for n, each in enumerate(lengths)
        ]  # fmt: skip
        with count:
            self._forward.run(scored, keep=[True] * len(scored))
        return self._missing_layers(sum(lengths))

    def _decoding(self, count: Allocations, sequences: int, tokens: int) -> int:
        """A batch's unsafe events go on in slots, with draft tokens: a step of all of them."""
        each = max(1, tokens // sequences)
        with count:
            batch = DecodeBatch(self._forward, least=sequences)
            known = [self._sequence(each) for _ in range(sequences)]
            for one in known:
                batch.add(one, ANSWER + MAX_DRAFT_TOKENS)
            batch.step([(0,) * SCORED] * sequences, [((0,) * MAX_DRAFT_TOKENS,)] * sequences)
            self._forward.logits(self._hidden(sequences * SCORED))
        return self._missing_layers(sum(len(one.ids) for one in known)) + self._in_all_layers(
            batch.slots.layers, missing=True
        )

    def _policy(self, count: Allocations, tokens: int) -> int:
        """A policy that goes live, computed chunk by chunk."""
        with count:
            PrefixCache(self._forward, 0)._compute((0,) * tokens)
        # Its keys are there twice while the last chunk joins the ones before it.
        return 2 * self._missing_layers(tokens)

    def _images(self, count: Allocations, images: int) -> int:
        """One batch through the vision tower."""
        size = self.config.vision_config.image_size
        dtype = self._few.dtype
        with count, _FlashAttention(), torch.inference_mode():
            pixels = torch.empty(min(images, TOWER_BATCH), 3, size, size, dtype=dtype, device=META)
            self._model.model.get_image_features(pixels)
        return 0

    # How three layers stand for all.

    def _missing_layers(self, tokens: int) -> int:
        """Keys and values of the layers that are not run."""
        return kv_bytes(self._whole, tokens) - kv_bytes(self._few, tokens)

    def _in_all_layers(
        self, layers: Iterable[tuple[torch.Tensor, torch.Tensor]], *, missing: bool = False
    ) -> int:
        """What the layers that were run hold, as many times as there are of each kind."""
        one = {kind: _bytes(*layer) for kind, layer in zip(self._few.sliding, layers, strict=True)}
        total = sum(one[kind] for kind in self._whole.sliding)
        return total - sum(one[kind] for kind in self._few.sliding) if missing else total

    def _segment(self, tokens: int) -> KVSegment:
        shape = self._few.shape
        part = torch.empty(
            tokens, shape.kv_heads, shape.head_dim, dtype=self._few.dtype, device=META
        )
        whole = self._forward.backend.segment([(part, part)] * shape.layers, 0, tokens)
        return whole.windowed(self._few.sliding, shape.window - 1)

    def _sequence(self, tokens: int, prefix: PrefixKV | None = None) -> SequenceKV:
        start = len(prefix) if prefix is not None else 0
        return SequenceKV(prefix, (0,) * tokens, start, self._segment(tokens).copied())

    def _hidden(self, tokens: int) -> torch.Tensor:
        return torch.empty(tokens, self._few.shape.hidden, dtype=self._few.dtype, device=META)


def profile(
    config: Any, dtype: torch.dtype, numerics: Numerics, backend: BackendName
) -> MemoryProfile:
    """The profile of a ``Gemma3Config``; made once in a process."""
    return _profile(
        json.dumps(config.to_dict(), default=str, sort_keys=True), dtype, numerics, backend
    )


@cache
def _profile(
    config: str, dtype: torch.dtype, numerics: Numerics, backend: BackendName
) -> MemoryProfile:
    return MemoryProfile(Gemma3Config.from_dict(json.loads(config)), dtype, numerics, backend)


def _few_layers(whole: TextWeights) -> TextWeights:
    """The first layer of each kind, and the last."""
    kinds = [whole.sliding.index(kind) for kind in dict.fromkeys(whole.sliding)]
    places = [*kinds, len(whole.layers) - 1]
    few = copy.copy(whole)
    few.layers = [whole.layers[place] for place in places]
    few.sliding = [whole.sliding[place] for place in places]
    few.shape = replace(whole.shape, layers=len(places))
    return few


def _lengths(sequences: int, tokens: int, longest: int) -> list[int]:
    """``tokens`` shared out evenly behind the longest."""
    first = min(longest, tokens)
    rest = min(sequences - 1, tokens - first)
    if not rest:
        return [first]
    return [first, *[(tokens - first) // rest] * rest]


def _bytes(*tensors: torch.Tensor | None) -> int:
    return sum(each.nbytes for each in tensors if each is not None)
