"""A model made for demonstrations never serves a real log by accident, and says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from tests.support.views import make_snapshot
from tests.support.worker_place import WorkerPlace
from worker.checkpoints import TINY
from worker.errors import ConfigurationError
from worker.judge.identity import is_demonstration, marked, refuse_demonstration
from worker.judge.scripted import ScriptedJudge
from worker.service import WorkerService
from worker.settings import Settings
from worker.web.health import HealthLimits, ready


def settings(**judge: object) -> Settings:
    return Settings(log={"backend": "kafka"}, judge=judge)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled checkpoint somewhere else, as a volume or a download has it."""
    directory = tmp_path / "models"
    directory.mkdir()
    for file in Path(TINY).glob("*.json"):
        shutil.copy(file, directory)
    return directory


def test_a_real_log_refuses_it_in_every_copy(copy: Path) -> None:
    """By a mark inside the checkpoint: the name of a directory says nothing."""
    for judge in ({}, {"model": "tiny"}, {"model": str(copy)}, {"backend": "scripted"}):
        with pytest.raises(ConfigurationError, match="allow_demonstration"):
            refuse_demonstration(settings(**judge))
        refuse_demonstration(settings(**judge, allow_demonstration=True))
        local = Settings(log={"backend": "local"}, judge=judge)
        refuse_demonstration(local)


def test_another_model_is_served(copy: Path) -> None:
    """And what cannot be read is left to whoever loads it."""
    config = json.loads((copy / "config.json").read_text())
    del config["moderation_worker"]
    (copy / "config.json").write_text(json.dumps(config))
    refuse_demonstration(settings(model=str(copy)))
    (copy / "config.json").write_text("no json")
    refuse_demonstration(settings(model=str(copy)))
    refuse_demonstration(settings(model="nvidia/Nemotron-3.5-Content-Safety"))


def test_what_a_hub_sent_is_refused_once_it_is_known() -> None:
    """Its mark is read when it is loaded; nothing was judged yet."""
    hub = settings(model="someone/tiny-copy")
    refuse_demonstration(hub)
    with pytest.raises(ConfigurationError, match="demonstration/tiny"):
        refuse_demonstration(hub, "demonstration/tiny")


def test_a_worker_on_a_real_log_does_not_begin_with_it(tmp_path: Path) -> None:
    """Before anything is loaded or subscribed."""
    place = WorkerPlace(tmp_path, log={"backend": "kafka"}, judge={"allow_demonstration": False})
    place.policy("a", topics=["t"])
    with pytest.raises(ConfigurationError, match=r"judge\.backend: demonstration/scripted"):
        WorkerService(place.settings)


def test_verdicts_call_it_what_it_is() -> None:
    """The id in every verdict, and the mark that it comes from."""
    assert ScriptedJudge().model().id == "demonstration/scripted"
    mark = marked(json.loads((Path(TINY) / "config.json").read_text()))
    assert (mark.demonstration, mark.family) == (True, "tiny")
    assert is_demonstration("demonstration/tiny")
    assert not is_demonstration("nvidia/Nemotron-3.5-Content-Safety")


def test_readiness_and_console_say_what_judges() -> None:
    """Whoever looks in the night sees it without knowing the settings."""
    real = make_snapshot()
    assert real.model is not None
    toy = msgspec.structs.replace(real.model, id="demonstration/tiny")
    shown = ready(msgspec.structs.replace(real, model=toy), HealthLimits())
    assert "demonstration/tiny" in json.loads(shown.body())["demonstration"]
    assert shown.notes == ready(real, HealthLimits()).notes
    assert "demonstration" not in json.loads(ready(real, HealthLimits()).body())
