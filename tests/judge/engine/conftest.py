"""A checkpoint with a small window, the engine over it, and the plain models it has to equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_cases import small_window
from worker.judge.engine.device import EngineDevice
from worker.judge.local.loading import Checkpoint, load, load_model
from worker.judge.local.lora import read_adapter
from worker.settings import JudgeSettings


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's directory."""
    return small_window(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def adapters(small: Path) -> list[str | None]:
    """The checkpoint as it is, and under two adapters."""
    return [None, str(small / "first"), str(small / "second")]


@pytest.fixture(scope="session")
def plain(small: Path) -> Checkpoint:
    """Loaded for the oracle alone: no engine has touched its weights."""
    return load(JudgeSettings(model=str(small)))


@pytest.fixture(scope="session")
def plain_models(plain: Checkpoint, adapters: list[str | None]) -> dict[str | None, Any]:
    """The plain model under every adapter."""
    models: dict[str | None, Any] = {None: plain.model}
    for adapter in adapters:
        if adapter is not None:
            models[adapter] = load_model(
                plain.source, read_adapter(Path(adapter)), plain.model.device, plain.model.dtype
            )
    return models


@pytest.fixture(scope="session")
def open_engine(small: Path, adapters: list[str | None]) -> Callable[..., EngineDevice]:
    """Makes an engine over a checkpoint of its own, with these settings and every adapter."""

    def open_engine(*, min_constant: float = 0.0, **fields: Any) -> EngineDevice:
        settings = JudgeSettings(**({"model": str(small)} | fields))
        device = EngineDevice(load(settings), settings, min_constant=min_constant)
        for adapter in adapters:
            if adapter is not None:
                device.replicas.add(adapter)
        return device

    return open_engine


@pytest.fixture(scope="session")
def engine(open_engine: Callable[..., EngineDevice]) -> EngineDevice:
    """The engine for tests that only ask questions; a third of the policies fit its budget."""
    return open_engine(prefix_bytes=1_500_000, image_bytes=40_000, prefill_tokens=40)
