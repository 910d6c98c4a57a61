"""Writing records to topics outside of any group: the demo, tools and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from worker.errors import FatalError
from worker.stream.base import Output
from worker.stream.local import place
from worker.stream.local_frames import encode_frame
from worker.stream.local_journal import Journal


class TopicWriter(Protocol):
    """Appends records; an async context."""

    async def __aenter__(self) -> TopicWriter: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def write(self, outputs: Sequence[Output]) -> None:
        """Append all; on return every record is there. Records of one key keep their order.

        Raises:
            FatalError: a topic is missing, or the log refused.
        """
        ...


class LocalWriter:
    """See ``TopicWriter``; on the local log, where one call is one transaction."""

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self._directory = directory
        self._fsync = fsync
        self._journal: Journal | None = None

    async def __aenter__(self) -> LocalWriter:
        self._journal = await asyncio.to_thread(Journal, self._directory, fsync=self._fsync)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def write(self, outputs: Sequence[Output]) -> None:
        journal = self._journal
        if journal is None:
            raise FatalError("the writer was used outside of its context")
        if outputs:
            await asyncio.to_thread(
                journal.append, lambda: encode_frame(place(outputs, journal.topics))
            )
