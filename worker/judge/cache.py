"""A judge that remembers: equal requests are judged once, and spam waves cost one forward.

    request -> key -> kept?       the answer at once                 "hit"
                   -> under way?  wait for the one that is judged    "shared"
                   -> else        judge, and keep what came of it    "miss"

What is kept is the judge's answer to one pass, before any threshold, suppression or floor: the
outcome is decided anew for every event, so that nothing becomes safe by having been seen before.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from functools import lru_cache
from hashlib import blake2b

import msgspec

from worker.codes import SkippedReasoning
from worker.contracts.verdict import ModelRef
from worker.errors import DependencyUnavailable
from worker.judge.base import Judge
from worker.judgement import Judgement, JudgeRequest, Rubric, ThinkPlan
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

# What makes two requests to the judge equal: everything that can change the answer, as one digest.
#
#     key = BLAKE2b(secret; what is asked | user | response | earlier turns | image)
#
# ``what is asked`` is rubric, THINK plan, adapter and model identity, so that a reloaded policy or
# another model never meets an old answer. The secret is this process's own: a key tells nobody what
# was said, not even whether a guess was right.

KEY_BYTES = 32


class RequestKeys:
    """Keys of requests, comparable within one instance only."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(KEY_BYTES)

    def key(self, request: JudgeRequest, model: ModelRef) -> bytes:
        """``KEY_BYTES`` bytes; ``model`` is the identity under the request's adapter.

        An image counts by its digest, which stands for exact pixels (``worker.media.decode``).
        """
        asked = _asked(request.rubric, request.think, request.adapter, model)
        digest = blake2b(asked, key=self._secret, digest_size=KEY_BYTES)
        parts: list[str | None] = [request.user, request.response, str(len(request.earlier))]
        parts += [part for turn in request.earlier for part in turn]
        image = request.image
        parts += [] if image is None else [image.sha256, f"{image.width}x{image.height}"]
        for part in parts:
            if part is None:
                digest.update(b"-")
                continue
            # With its length in front, so that no two lists of texts share one byte string. A
            # lone surrogate is not UTF-8, and may stand in what users send.
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded))
            digest.update(encoded)
        return digest.digest()


@lru_cache(maxsize=1024)
def _asked(rubric: Rubric, think: ThinkPlan, adapter: str | None, model: ModelRef) -> bytes:
    """A digest of every field, those included that are added later."""
    encoded = msgspec.msgpack.encode((rubric, think, adapter, model))
    return blake2b(encoded, digest_size=KEY_BYTES).digest()


ENTRY_BYTES = KEY_BYTES + 320
"""What an entry takes besides its encoded answer: its key, and the dictionary's own."""

_LASTING = (None, SkippedReasoning.EMPTY, SkippedReasoning.UNCLOSED)
"""What a trace ends in for reasons of the content, and would end in again; not load or failure."""
_HIT, _SHARED, _MISS = ({Attribute.RESULT: result} for result in ("hit", "shared", "miss"))


class CacheFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Requests since the start by what answered, and what is kept now."""

    hits: int = 0
    shared: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0
    max_bytes: int = 0


class _Abandoned:
    """The event that was being judged was given up; whoever waits for it judges for itself."""


class _Failed:
    """It could not be judged. The fault may be that one's alone, so each waiter tries its own."""


_Landed = Judgement | DependencyUnavailable | type[_Abandoned] | type[_Failed]


class CachingJudge:
    """Implements ``base.Judge`` around any judge; use it from one event loop.

    At most ``max_bytes`` are kept, the least recently used go first. Never kept is what another try
    might answer otherwise: errors, and answers whose trace was shed, late or failed.
    """

    def __init__(self, inner: Judge, max_bytes: int) -> None:
        self.inner = inner
        self._max_bytes = max_bytes
        self._keys = RequestKeys()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[_Landed]] = {}
        self._bytes = self._hits = self._shared = self._misses = 0
        self._open = False
        self._decoder = msgspec.msgpack.Decoder(Judgement)

    def model(self, adapter: str | None = None) -> ModelRef:
        return self.inner.model(adapter)

    async def start(self) -> None:
        await self.inner.start()
        instruments.judge_cache_bytes.watch(lambda: [(self._bytes, {})])
        self._open = True

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        await self.inner.prepare(rubric, adapter)

    async def judge(self, request: JudgeRequest) -> Judgement:
        if not request.cache or not self._open:
            return await self.inner.judge(request)
        key = self._keys.key(request, self.inner.model(request.adapter))
        while True:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self._hits += 1
                instruments.judge_cache.add(1, _HIT)
                return self._decoder.decode(found)
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, request)
            # Shielded: one waiter that is given up must not end the wait of the others.
            landed = await asyncio.shield(flight)
            if isinstance(landed, Judgement):
                self._shared += 1
                instruments.judge_cache.add(1, _SHARED)
                return landed
            if isinstance(landed, DependencyUnavailable):
                raise DependencyUnavailable(landed.dependency, landed.detail)
            if landed is _Failed:
                return await self._missed(request)

    def figures(self) -> CacheFigures:
        """Everything counted, now."""
        return CacheFigures(
            hits=self._hits,
            shared=self._shared,
            misses=self._misses,
            entries=len(self._kept),
            bytes=self._bytes,
            max_bytes=self._max_bytes,
        )

    def stalled_s(self) -> float:
        return self.inner.stalled_s()

    async def stop(self) -> None:
        self._open = False
        self._kept.clear()
        self._bytes = 0
        instruments.judge_cache_bytes.watch(None)
        await self.inner.stop()

    async def _lead(self, key: bytes, request: JudgeRequest) -> Judgement:
        """Judge for everybody who asks the same meanwhile."""
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        landed: _Landed = _Failed
        try:
            judgement = await self._missed(request)
            landed = _reused(judgement)
            self._keep(key, landed)
            return judgement
        except asyncio.CancelledError:
            landed = _Abandoned
            raise
        except DependencyUnavailable as error:
            landed = error
            raise
        finally:
            del self._flights[key]
            flight.set_result(landed)

    async def _missed(self, request: JudgeRequest) -> Judgement:
        self._misses += 1
        instruments.judge_cache.add(1, _MISS)
        return await self.inner.judge(request)

    def _keep(self, key: bytes, judgement: Judgement) -> None:
        thought = judgement.thought
        if not self._open or (thought is not None and thought.skipped not in _LASTING):
            return
        try:
            encoded = msgspec.msgpack.encode(judgement)
        except UnicodeEncodeError:  # a server may write lone surrogates: answered, not kept
            return
        size = len(encoded) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        self._kept[key] = encoded
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped) + ENTRY_BYTES


def cache_figures(judge: Judge) -> CacheFigures:
    """The figures of a judge that remembers; zeros of one that does not."""
    return judge.figures() if isinstance(judge, CachingJudge) else CacheFigures()


def _reused(judgement: Judgement) -> Judgement:
    return msgspec.structs.replace(
        judgement, cached=True, input_tokens=0, output_tokens=0, queue_ms=0.0, judge_ms=0.0
    )
