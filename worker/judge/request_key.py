"""What makes two requests to the judge equal: everything that can change the answer, as one digest.

    key = BLAKE2b(secret; what is asked | user | response | earlier turns | image)

``what is asked`` is rubric, THINK plan, adapter and model identity, so that a reloaded policy or
another model never meets an old answer. The secret is this process's own: a key tells nobody what
was said, not even whether a guess was right.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from hashlib import blake2b

import msgspec

from worker.contracts.verdict import ModelRef
from worker.judge.base import JudgeRequest, Rubric, ThinkPlan

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
