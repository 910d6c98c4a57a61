"""Keys and values that are kept: of policies in force, and of images that come again under them.

An image stands in front of its event's text, so everything up to its end is the same in every event
of a policy that shows it, and later events go on from there::

    policy | <BEGIN CONVERSATION>⏎user: IMAGE | TEXT⏎<END CONVERSATION>⏎Output your answer…
    pinned    kept when it comes again           computed for every event
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Generator
from weakref import WeakValueDictionary

from worker.judge.engine.batch import InputSequence
from worker.judge.engine.forward import Forward
from worker.judge.engine.kv_cache import KVSegment, PrefixKV, SequenceKV
from worker.judge.reference.decode import Context

logger = logging.getLogger(__name__)

PREFIX_CHUNK = 2048
"""Tokens of a prefix computed in one forward."""


class PrefixCache:
    """Policy prefixes of one model, computed once and pinned by a budget of bytes.

    Traffic never displaces one: what finds no room is computed again for every batch, which
    ``misses`` counts; so is what came out as no numbers, or one bad moment of the device would
    stay with its policy. Only a policy that goes live (``pin``) does, and takes the place of those
    that were used the longest ago. Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, forward: Forward, budget: int) -> None:
        self._forward, self._budget = forward, budget
        self.window = forward.weights.shape.window
        self._pinned: dict[tuple[int, ...], PrefixKV] = {}
        self._alive: WeakValueDictionary[tuple[int, ...], PrefixKV] = WeakValueDictionary()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._pinned)

    def get(self, ids: tuple[int, ...]) -> PrefixKV:
        """The prefix, from now on pinned if there is room for it."""
        found = self._pinned.pop(ids, None)
        if found is not None:
            self.hits += 1
            self._pinned[ids] = found  # used last
            return found
        held = self._alive.get(ids)  # by an event of the same batch
        if held is not None:
            self.hits += 1
            return held
        self.misses += 1
        prefix = self._compute(ids)
        if not prefix.finite:
            return prefix
        if self.bytes + prefix.bytes <= self._budget:
            self._pinned[ids] = prefix
            self.bytes += prefix.bytes
        else:
            self._alive[ids] = prefix
        return prefix

    def pin(self, ids: tuple[int, ...]) -> None:
        """``pinning``, all of it at once."""
        for _ in self.pinning(ids):
            pass

    def pinning(self, ids: tuple[int, ...]) -> Generator[None]:
        """Make room for a prefix and compute it, a chunk a step: a long policy that goes live holds
        up no event for longer. One that is there counts as used last."""
        if not ids:
            return
        if ids not in self._pinned:
            prefix = yield from self._chunks(ids)
            if ids not in self._pinned:  # an event may have needed it meanwhile
                self._place(ids, prefix)
        if ids in self._pinned:
            self._pinned[ids] = self._pinned.pop(ids)

    def _place(self, ids: tuple[int, ...], prefix: PrefixKV) -> None:
        """Pin it in place of those that were used the longest ago, if it is worth it."""
        if prefix.bytes > self._budget:
            logger.warning(
                "a policy of %d tokens takes %d bytes of keys and values and is computed anew for "
                "every batch; raise judge.prefix_bytes", len(ids), prefix.bytes,
            )  # fmt: skip
            return
        if not prefix.finite:
            logger.warning("a policy's keys and values are no numbers; they are computed again")
            return
        while self.bytes + prefix.bytes > self._budget:
            self.bytes -= self._pinned.pop(next(iter(self._pinned))).bytes
        self._pinned[ids] = prefix
        self.bytes += prefix.bytes

    def _compute(self, ids: tuple[int, ...]) -> PrefixKV:
        chunks = self._chunks(ids)
        while True:
            try:
                next(chunks)
            except StopIteration as end:
                computed: PrefixKV = end.value
                return computed

    def _chunks(self, ids: tuple[int, ...]) -> Generator[None, None, PrefixKV]:
        """Compute a prefix, stopping before every chunk but the first."""
        past: SequenceKV | None = None
        for start in range(0, len(ids), PREFIX_CHUNK):
            if start:
                yield
            chunk = InputSequence(ids=ids[start : start + PREFIX_CHUNK], past=past)
            known = self._forward.run([chunk], keep=[True]).kept[0]
            assert known is not None
            kv = known.kv.windowed(self._forward.weights.sliding, self.window - 1)
            past = SequenceKV(None, known.ids, known.start, kv)
        assert past is not None
        return PrefixKV(ids, past.kv.contiguous())


ONCE = 4096
"""Images remembered as seen once; what never comes again takes no room."""

Key = tuple[int, tuple[int, ...], str]


class ImageKVCache:
    """What lies between a policy and the end of an image. The least recently used go first.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, prefixes: PrefixCache, budget: int) -> None:
        self._prefixes, self._budget = prefixes, budget
        self._kept: OrderedDict[Key, KVSegment] = OrderedDict()
        self._once: OrderedDict[int, None] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, context: Context) -> SequenceKV | None:
        """What is known of a context up to the end of its image."""
        key = self._key(context)
        if key is None:
            return None
        kv = self._kept.get(key)
        if kv is None:
            self.misses += 1
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        policy, ids, _ = key
        # The policy's keys are looked up, not kept with the image's: they may have been displaced.
        return SequenceKV(self._prefixes.get(ids[:policy]), ids[policy:], policy, kv)

    def keep(self, context: Context, known: SequenceKV) -> None:
        """Take in a context that was computed from its policy on, the second time it comes."""
        key = self._key(context)
        if key is None or key in self._kept or not self._comes_again(key):
            return
        policy, ids, _ = key
        part = known.cut(len(ids) - policy, self._prefixes.window)
        if part is None or part.bytes > self._budget or not part.kv.finite:
            return  # what is no number may be one the next time
        while self.bytes + part.bytes > self._budget:
            _, gone = self._kept.popitem(last=False)
            self.bytes -= gone.bytes
        self._kept[key] = part.kv.copied()
        self.bytes += part.bytes

    def _comes_again(self, key: Key) -> bool:
        mark = hash(key)  # two images that share one are kept a time too early
        if self._once.pop(mark, False) is None:
            return True
        self._once[mark] = None
        if len(self._once) > ONCE:
            self._once.popitem(last=False)
        return False

    def _key(self, context: Context) -> Key | None:
        """All that the keys follow from; None where there is no policy or image to go by."""
        if context.pixels is None or not (context.digest and context.policy and self._budget):
            return None
        end = context.types.index(1) + sum(context.types)
        return context.policy, context.ids[:end], context.digest
