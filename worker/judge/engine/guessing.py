"""Greedy text in fewer forwards: what is likely to follow is computed together with what is there.

::

    …⏎Safety Categories: Sexual | [,]                 the names that go on like this are guesses,
                                | [ (minor) ,]        as branches that do not see each other

A guess costs its tokens in one forward. Of the guesses only what greedy decoding takes is written,
so the text is the one written without them, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.judge.decode import Guess, Writing, Written, write_step
from worker.judge.engine.forward import Forward
from worker.judge.engine.slots import Slots

MOST = 64
"""Tokens of one row's guesses in one forward."""


@torch.inference_mode()
def write_on(
    forward: Forward,
    slots: Slots,
    pending: Sequence[Sequence[int]],
    written: Sequence[Written],
    guesses: Sequence[Guess],
    writing: Writing,
) -> list[tuple[int, ...]]:
    """Compute what is ``pending`` in every slot and write what follows: one token, or a guess more.

    Returns what is pending then; nothing in a row that has ended. Rows with nothing pending rest.
    """
    rows = [n for n, ids in enumerate(pending) if ids]
    tried: list[tuple[tuple[int, ...], ...]] = [()] * len(pending)
    for n in rows:
        tried[n] = _bounded(guesses[n](written[n].ids))
    states = slots.states(pending, tried)
    at = {n: len(pending[n]) - 1 for n in rows}
    new: list[tuple[int, ...]] = [()] * len(pending)
    while rows:
        logits = forward.logits(torch.stack([states[n][at[n]] for n in rows]))
        tokens = write_step(logits, [written[n] for n in rows], writing)
        going = []
        for n, token in zip(rows, tokens, strict=True):
            if written[n].ended:
                new[n] = ()
                continue
            new[n] += (token,)
            place = _place(tried[n], new[n])
            if place is not None:
                at[n] = len(pending[n]) + place
                going.append(n)
        rows = going
    return new


def _bounded(guesses: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The first of them that take no more than ``MOST`` tokens together."""
    kept, left = [], MOST
    for guess in guesses:
        left -= len(guess)
        if left < 0:
            break
        kept.append(guess)
    return tuple(kept)


def _place(guesses: Sequence[tuple[int, ...]], path: tuple[int, ...]) -> int | None:
    """Where a path ends among the guesses' tokens, one guess after the other; None outside them."""
    start = 0
    for guess in guesses:
        if guess[: len(path)] == path:
            return start + len(path) - 1
        start += len(guess)
    return None
