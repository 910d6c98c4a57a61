"""A judge by hand: the parts of the worker that need no log, opened and closed together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from worker.clock import Clock, SystemClock
from worker.contracts.event import ImageRef
from worker.images import FetchedImage
from worker.judge.base import Judge
from worker.judge.factory import open_judge
from worker.media.factory import open_store
from worker.media.fetch import ImageFetcher
from worker.media.local_files import SCHEME, LocalFileFetcher
from worker.processing.evaluator import Evaluator, Fetcher, open_evaluator
from worker.processing.examples import ExampleRunner
from worker.settings import Settings


class HandFetcher:
    """Files for ``file://`` references, the configured store for every other."""

    def __init__(self, store: Fetcher, files: Fetcher) -> None:
        self._store = store
        self._files = files

    def fetch(
        self, refs: Sequence[ImageRef]
    ) -> AbstractAsyncContextManager[tuple[FetchedImage, ...]]:
        """All references of one event come from one of the two."""
        local = all(ref.uri.startswith(SCHEME) for ref in refs)
        return (self._files if local else self._store).fetch(refs)


class Session:
    """An open judge. ``examples`` runs examples of policies on it."""

    def __init__(self, judge: Judge, evaluator: Evaluator, examples: ExampleRunner) -> None:
        self.judge = judge
        self.evaluator = evaluator
        self.examples = examples


@asynccontextmanager
async def open_session(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Session]:
    """Load the model and open the store of ``settings``; both are closed on the way out."""
    clock = clock or SystemClock()
    fetcher = ImageFetcher(open_store(settings.store, clock), settings.store, clock)
    judge = open_judge(settings.judge)
    try:
        await fetcher.start()
        await judge.start()
        by_hand = HandFetcher(fetcher, LocalFileFetcher(settings.store))
        evaluator = open_evaluator(settings.judge, judge, by_hand, clock)
        yield Session(
            judge, evaluator, ExampleRunner(evaluator, judge.model(), settings.judge.family)
        )
    finally:
        await judge.stop()
        await fetcher.stop()
