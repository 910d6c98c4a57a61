"""The remote judge keeps the Judge contract, asking a real server that serves the bundled model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.judge.conformance import JudgeConformance
from tests.support.openai_server import OpenAIServer
from tests.support.openai_writers import CheckpointWriter
from worker.judge.base import Judge
from worker.judge.remote.judge import RemoteJudge
from worker.settings import JudgeSettings


@pytest.mark.model
class TestRemoteJudge(JudgeConformance):
    @pytest_asyncio.fixture(autouse=True)
    async def _server(self, tiny_writer: CheckpointWriter) -> AsyncIterator[None]:
        async with OpenAIServer(tiny_writer) as server:
            self.settings = JudgeSettings.model_validate(
                {"backend": "remote", "remote": {"base_url": server.url}}
            )
            yield

    def make(self) -> Judge:
        return RemoteJudge(self.settings)
