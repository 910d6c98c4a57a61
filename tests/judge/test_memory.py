"""The worker looks at its memory before it loads a model."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from worker.errors import ConfigurationError
from worker.judge.engine.shapes import config_4b
from worker.judge.local import memory as card
from worker.judge.local.loading import placed
from worker.judge.local.memory import GIB, PROCESS, fit
from worker.settings import JudgeSettings


def machine_of(size: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control group that allows this process so many bytes."""
    limit = directory / "memory.max"
    limit.write_text(f"{size}\n", encoding="ascii")
    monkeypatch.setattr(card, "_CGROUP", (limit,))


def start(**settings: object) -> None:
    """What happens in front of loading the 4B shape on a CPU."""
    wanted = JudgeSettings.model_validate({"max_context": 2048, **settings})
    fit(wanted, config_4b(), torch.device("cpu"), torch.bfloat16)


def test_a_model_that_the_machine_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to set, before minutes of loading end in the kernel's kill."""
    machine_of(8 * GIB, tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=r"judge\.numerics w8a16 \(is model\)") as error:
        start()
    assert str(error.value).count("judge.") >= 2


def test_a_batch_that_may_not_fit_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a CPU nobody may ever send it; what is held for good fits."""
    machine_of(16 * GIB, tmp_path, monkeypatch)
    with caplog.at_level(logging.WARNING):
        start(max_batch_tokens=65_536)
    assert "judge.max_batch_tokens" in caplog.text
    caplog.clear()
    machine_of(64 * GIB, tmp_path, monkeypatch)
    start()
    assert caplog.text == ""


def test_a_container_may_use_no_more_than_its_control_group_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``max`` means all of the machine."""
    machine_of(PROCESS, tmp_path, monkeypatch)
    assert card.host_bytes() == PROCESS
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert card.host_bytes() > PROCESS


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 * GIB), ("24 GB", 24 * 10**9), ("1.5", GIB * 3 // 2)]
)
def test_sizes_are_read_as_they_are_written(text: str, size: int) -> None:
    """Binary and decimal units; a number alone is GiB."""
    assert card.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "8 parsecs", "-1GiB", "0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """With an example of one that is."""
    with pytest.raises(ConfigurationError, match="8GiB"):
        card.parse_size(text)


def test_matrices_in_eight_bits_never_lie_on_the_device_as_loaded() -> None:
    """They follow one by one: the card may hold them in eight bits only."""
    from tests.judge.engine.test_memory_profile import medium

    model = placed(medium(torch.bfloat16), torch.device("meta"), "w8a16")
    layers = model.model.language_model.layers
    behind = {id(each.weight) for each in layers.modules() if isinstance(each, torch.nn.Linear)}
    assert len(behind) == 12 * 7
    for weight in model.parameters():
        assert weight.device.type == ("cpu" if id(weight) in behind else "meta")
