"""A judged turn that does not fit into one context, judged in windows that overlap.

    user      |------ 1 ------|                     each window of the user's text alone
                          |------ 2 ------|
    response  head … tail |------ 3 ------|         each of the response behind the user's head
                                                    and tail, so that it is read as an answer

Every window is a context of its own, and any unsafe one makes the event unsafe. What is left when
the budget is spent is a fault of the event (``context_too_long``), whatever was found in the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from worker.codes import UndecidedReason
from worker.concurrency import together
from worker.outcome.passes import PassResult, PassSource

OVERLAP = 1_000
"""Characters that neighbours share: what is said in fewer stands whole in one of them."""
LARGEST = 32_000
"""Characters of the first windows that are tried; fewer where the context takes fewer."""
SMALLEST = 2 * OVERLAP
"""Characters below which a window is not cut any smaller: the overlap would be all of it."""
EXCERPT = 300
"""Characters of head and of tail that stand for a text too long to be repeated."""


class Window(NamedTuple):
    """What stands in one context."""

    user: str
    response: str | None


Ask = Callable[[Window], Coroutine[Any, Any, PassResult]]
"""Judges one window."""


def too_long(result: PassResult) -> bool:
    """Whether a context did not take its text."""
    return result.fault is UndecidedReason.CONTEXT_TOO_LONG


def excerpt(text: str) -> str:
    """Head and tail of a text, or the whole of a short one."""
    if len(text) <= 2 * EXCERPT:
        return text
    return f"{text[:EXCERPT]} … {text[-EXCERPT:]}"


def cut(text: str, size: int) -> list[str]:
    """Windows of ``size`` characters, each sharing ``OVERLAP`` with the one before."""
    step = max(1, size - OVERLAP)
    last = max(0, len(text) - OVERLAP)
    return [text[start : start + size] for start in range(0, max(1, last), step)]


def windows(whole: Window, size: int) -> list[Window]:
    """The user's windows, then the response's."""
    found = [Window(each, None) for each in cut(whole.user, size)]
    if whole.response:
        user = excerpt(whole.user)
        found += [Window(user, each) for each in cut(whole.response, size)]
    return found


async def judge_windows(ask: Ask, whole: Window, most: int, source: PassSource) -> list[PassResult]:
    """Judge a turn that was too long for one context in at most ``most`` windows."""
    size = min(LARGEST, max(len(whole.user), len(whole.response or "")))
    results: list[PassResult] = []
    pending: deque[Window] = deque()
    # One window is tried until it fits; what differs from it is cut smaller when its turn comes.
    while most and size >= SMALLEST:
        pending = deque(windows(whole, size))
        first = await ask(pending[0])
        if not too_long(first):
            results.append(first)
            pending.popleft()
            break
        size = size * 3 // 5
    stuck = not results
    while pending and not stuck and len(results) < most:
        asked = [pending.popleft() for _ in range(min(len(pending), most - len(results)))]
        answers = await together(ask(each) for each in asked)
        refused: list[Window] = []
        for each, answer in zip(asked, answers, strict=True):
            if not too_long(answer):
                results.append(answer)
                continue
            smaller = _smaller(each)
            stuck = stuck or not smaller
            refused += smaller
        pending.extendleft(reversed(refused))
    if pending or stuck:
        left = f"{len(results)} windows were judged, and what is left does not fit"
        results.append(
            PassResult(source=source, fault=UndecidedReason.CONTEXT_TOO_LONG, detail=left)
        )
    return results


def _smaller(window: Window) -> list[Window]:
    """A window that did not fit in two or more that may; empty where it is as small as they get."""
    text = window.user if window.response is None else window.response
    size = len(text) * 3 // 5
    if size < SMALLEST:
        return []
    parts = cut(text, size)
    if window.response is None:
        return [Window(each, None) for each in parts]
    return [Window(window.user, each) for each in parts]
