"""The few tokens of the server's tokenizer that the judge must know, learnt from ``/tokenize``.

With their ids a label or a name can be preferred (``logit_bias``), so that the server itself writes
what follows it. vLLM has the route; where it is missing, the floor is judged by names alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from worker.errors import Undecided
from worker.judge.labels import CATEGORIES, USER
from worker.judge.remote.client import Client
from worker.judge.remote.failure import Failure
from worker.policy.taxonomy import BUILTIN, FLOOR

_LINE = f"{USER} unsafe{CATEGORIES}"


@dataclass(frozen=True)
class Vocabulary:
    """``unsafe`` is the label's token; ``first`` and ``further`` spell the floor's name.

    ``first`` is the name behind the line's colon, ``further`` behind another name, its comma
    included. ``ids`` holds the id of every token among them.
    """

    unsafe: int
    first: tuple[bytes, ...]
    further: tuple[bytes, ...]
    ids: dict[bytes, int]


class _Tokenized(msgspec.Struct):
    tokens: list[int]
    token_strs: list[str] | None = None


async def learn(client: Client, model: str, timeout_s: float) -> Vocabulary | None:
    """Ask the server how it spells the answer; None where it has no such route, or spells it in
    pieces that do not add up."""

    async def encode(text: str) -> list[tuple[int, str]]:
        body = {
            "model": model,
            "prompt": text,
            "add_special_tokens": False,
            "return_token_strs": True,
        }
        answer = await client.post("/tokenize", msgspec.json.encode(body), timeout_s)
        found = msgspec.json.decode(answer, type=_Tokenized)
        return list(zip(found.tokens, found.token_strs or (), strict=True))

    try:
        safe, unsafe = [await encode(f"{USER} {label}") for label in ("safe", "unsafe")]
        first = _rest(await encode(_LINE), await encode(f"{_LINE} {FLOOR}"), f" {FLOOR}")
        other = f"{_LINE} {BUILTIN[0]}"
        further = _rest(await encode(other), await encode(f"{other}, {FLOOR}"), f", {FLOOR}")
    except (Failure, Undecided, msgspec.DecodeError, ValueError):
        return None
    if len(safe) != len(unsafe) or safe[:-1] != unsafe[:-1] or safe[-1] == unsafe[-1]:
        return None
    pieces = dict(first) | dict(further)
    return Vocabulary(
        unsafe=unsafe[-1][0],
        first=tuple(text for text, _ in first),
        further=tuple(text for text, _ in further),
        ids=pieces,
    )


def _rest(
    start: list[tuple[int, str]], whole: list[tuple[int, str]], text: str
) -> list[tuple[bytes, int]]:
    """The tokens behind ``start``, as the text they stand for.

    Raises:
        ValueError: they do not begin with ``start``, or do not spell the text.
    """
    if whole[: len(start)] != start:
        raise ValueError("tokens merge across a seam")
    # Blanks in a vocabulary: ``▁`` in SentencePiece's, ``Ġ`` in byte-level ones.
    pieces = [
        (each.replace("▁", " ").replace("Ġ", " ").encode(), number)
        for number, each in whole[len(start) :]
    ]
    if b"".join(piece for piece, _ in pieces) != text.encode():
        raise ValueError("the tokens do not spell the text")
    return pieces
