"""What reader, writer and admin of the local log share: the journal, open inside a context."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

from worker.errors import FatalError
from worker.log.local.journal import Journal


class LocalTool:
    """An async context around the journal in ``directory``."""

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self._directory = directory
        self._fsync = fsync
        self._opened: Journal | None = None

    async def __aenter__(self) -> Self:
        self._opened = await asyncio.to_thread(Journal, self._directory, fsync=self._fsync)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            raise FatalError("the log was used outside of its context")
        return self._opened
