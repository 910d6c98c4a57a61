"""The first settings a reader copies load, and mean what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.pages import blocks
from tests.support.tools import REPOSITORY
from worker.settings import Settings, load_settings

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The page's worker.yaml, read as ``run --config`` reads it."""
    monkeypatch.chdir(REPOSITORY)
    (written,) = blocks(TEXT, "yaml")
    file = tmp_path / "worker.yaml"
    file.write_text(written, encoding="utf-8")
    return load_settings(file)


def test_the_example_settings_load(settings: Settings) -> None:
    """Unknown fields and impossible combinations would be refused here as there."""
    assert settings.delivery == "exactly_once"
    assert settings.kafka.security.protocol == "SASL_SSL"
    assert settings.store.buckets
    assert settings.topics.replication > 1


def test_the_example_settings_hold_no_secret() -> None:
    """What is copied from here ends in repositories."""
    (written,) = blocks(TEXT, "yaml")

    assert "password" not in yaml.safe_load(written)["kafka"]["security"]


def test_the_example_names_the_revision_that_the_worker_pins(settings: Settings) -> None:
    """Two revisions in one repository would be one too many."""
    assert settings.judge.guard.revisions[settings.judge.model] == settings.judge.revision


def test_the_policies_of_the_example_are_there(settings: Settings) -> None:
    """The commands beneath it work from a fresh clone."""
    assert list((REPOSITORY / settings.policies.directory).glob("*.yaml"))


@pytest.mark.parametrize("name", ["demonstration checkpoint", "small vocabulary"])
def test_the_bundled_checkpoint_is_called_what_it_is(name: str) -> None:
    """Nobody shall take it for the judge of a platform."""
    assert name in TEXT
