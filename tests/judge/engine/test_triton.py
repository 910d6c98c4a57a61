"""The Triton backend without a GPU: exact under the interpreter, compiled for every architecture.

What no test here can show: bfloat16 and fp8 on a card, and how fast it is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from worker.errors import ConfigurationError
from worker.judge.engine import backend
from worker.judge.engine.backends import choose

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

CASES, DECODED = 310, 12
TOLERANCE = 1e-4
MOST_LAUNCHES = 8
"""Kernels of our own a layer: attention, norm and rotation, gelu, twice add and norm; with those in
front of the first layer, four products and the two of slots, within twelve."""
SPILLED = 600
"""Bytes of stack a thread, the bound that the compiled kernels are held to."""


def run(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    """Lines of JSON that a program of its own printed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_kernels_give_the_logits_of_the_plain_model(record_property: Any) -> None:
    """Text, branches, images, pasts, 1 to 50 policies, both sides of the window; decode steps with
    draft tokens; padding that a graph's bucket adds."""
    (found,) = run("tests.judge.engine.interpreted", str(CASES), str(DECODED), TRITON_INTERPRET="1")
    record_property("figures", json.dumps(found))
    print(found)
    assert found["worst"] <= TOLERANCE, found
    assert found["worst_decoding"] <= TOLERANCE, found
    assert found["padding"] == 0.0, found
    assert found["launches"] <= MOST_LAUNCHES, found
    assert found["cases"] >= 300, found
    assert min(found[kind] for kind in ("long", "image", "past", "branches")) >= 25, found
    assert found["mixed"] >= 25, found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_attention_compiles_for_every_architecture_within_its_shared_memory() -> None:
    """The widest path at the 4B shape, on a machine without a GPU; a compiler alone would build
    what no card can launch."""
    found = run("moderation_tools.kernels", "--shapes", "4b", "--only", "attention", "--cases",
                "queries sliding marks")  # fmt: skip
    assert {each["arch"] for each in found} == {80, 86, 89, 90, 100, 120}
    for each in found:
        assert each["shared"] <= each["limit"], each
        assert -1 <= each["spilled"] <= SPILLED, each


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_stands_between_products_compiles_and_float32_stays_float32() -> None:
    """Every fused kernel, fp8 casts among them, for Hopper; and no product in tf32, which would be
    wrong in the third digit."""
    found = run("moderation_tools.kernels", "--arch", "90", "--shapes", "4b", "--cases", "fp8")
    assert {each["kernel"] for each in found} == {"add_norm", "gelu_up"}
    found = run("moderation_tools.kernels", "--arch", "90", "--shapes", "tiny", "--numbers", "fp32",
                "--cases", "queries")  # fmt: skip
    assert found
    assert not any(each["tf32"] for each in found)


def test_without_triton_a_gpu_computes_in_plain_products_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Slower, with a line in the log; asked for by name it is refused."""
    monkeypatch.setitem(sys.modules, "triton", None)
    with caplog.at_level("WARNING"):
        assert choose("auto", torch.device("cuda")) == "reference"
    assert "Triton is not installed" in caplog.text
    with pytest.raises(ConfigurationError, match=r"judge\.attention: triton is not installed"):
        choose("triton", torch.device("cuda"))


def test_the_engine_runs_where_triton_cannot_be_imported() -> None:
    """Wheels of torch for CPUs alone come without it."""
    found = run("tests.judge.engine.blocked")
    assert found == [{"backend": "cpu", "imported": False}]


@pytest.mark.parametrize(
    ("asked", "device", "taken"),
    [("auto", "cpu", "cpu"), ("auto", "cuda", "triton"), ("reference", "cpu", "reference"),
     ("reference", "cuda", "reference"), ("cpu", "cpu", "cpu"), ("triton", "cuda", "triton")],
)  # fmt: skip
def test_one_place_chooses_what_computes_attention(asked: Any, device: str, taken: str) -> None:
    """By device, unless somebody says."""
    assert choose(asked, torch.device(device)) == taken


@pytest.mark.parametrize(("asked", "device"), [("cpu", "cuda"), ("triton", "cpu")])
def test_what_does_not_run_on_a_device_is_refused(asked: Any, device: str) -> None:
    """At the start, with what does."""
    with pytest.raises(ConfigurationError, match=rf"judge\.attention: {asked} does not run on"):
        choose(asked, torch.device(device))


def test_nothing_else_asks_what_a_device_is() -> None:
    """The engine's other files know no device, so a new one is one backend."""
    for file in sorted(Path(backend.__file__).parent.glob("*.py")):
        if file.name not in ("backends.py", "quantization.py", "triton_backend.py"):
            assert "device.type" not in file.read_text(encoding="utf-8"), file.name
