"""Keys and values of images that come again, by the policy they are shown under.

An image stands in front of its event's text, so everything up to its end is the same in every event
of a policy that shows it, and later events go on from there::

    policy | <BEGIN CONVERSATION>⏎user: IMAGE | TEXT⏎<END CONVERSATION>⏎Output your answer…
    pinned    kept when it comes again           computed for every event
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from worker.judge.decode import Context
from worker.judge.engine.keys import LayerKV, OwnKV, finite, size
from worker.judge.engine.prefixes import Prefixes

ONCE = 4096
"""Images remembered as seen once; what never comes again takes no room."""

Key = tuple[int, tuple[int, ...], str]


class ImageKeys:
    """What lies between a policy and the end of an image. The least recently used go first.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, prefixes: Prefixes, budget: int) -> None:
        self._prefixes, self._budget = prefixes, budget
        self._kept: OrderedDict[Key, tuple[LayerKV, ...]] = OrderedDict()
        self._once: OrderedDict[int, None] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, context: Context) -> OwnKV | None:
        """What is known of a context up to the end of its image."""
        key = self._key(context)
        if key is None:
            return None
        layers = self._kept.get(key)
        if layers is None:
            self.misses += 1
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        policy, ids, _ = key
        # The policy's keys are looked up, not kept with the image's: they may have been displaced.
        return OwnKV(self._prefixes.get(ids[:policy]), ids[policy:], policy, layers)

    def keep(self, context: Context, own: OwnKV) -> None:
        """Take in a context that was computed from its policy on, the second time it comes."""
        key = self._key(context)
        if key is None or key in self._kept or not self._comes_again(key):
            return
        policy, ids, _ = key
        part = own.cut(len(ids) - policy, self._prefixes.window)
        if part is None or part.bytes > self._budget or not finite(part.layers[-1]):
            return  # what is no number may be one the next time
        while self.bytes + part.bytes > self._budget:
            _, gone = self._kept.popitem(last=False)
            self.bytes -= size(gone)
        self._kept[key] = tuple((_copied(keys), _copied(values)) for keys, values in part.layers)
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


def _copied(part: torch.Tensor) -> torch.Tensor:
    """Out of the batch, which would stay in memory with it, and in one piece."""
    return part.clone(memory_format=torch.contiguous_format)
