"""Writing records to topics outside of any group: the demo, tools and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from worker.log.local.journal import encode_transaction
from worker.log.local.log import place
from worker.log.local.tools import LocalTool
from worker.records import Output


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


class LocalWriter(LocalTool):
    """See ``TopicWriter``; on the local log, where one call is one transaction."""

    async def write(self, outputs: Sequence[Output]) -> None:
        journal = self._journal
        if outputs:
            await asyncio.to_thread(
                journal.append, lambda: encode_transaction(place(outputs, journal.topics))
            )
