"""Which device backend there is, and which one runs: the one place where devices differ."""

from __future__ import annotations

import importlib.util
import logging

import torch

from worker.errors import ConfigurationError
from worker.judge.engine.backend import Attention, Backend, BackendName
from worker.judge.engine.model import TextWeights
from worker.judge.engine.torch_backend import TorchBackend, cpu_flash, matrix_products

logger = logging.getLogger(__name__)


def choose(asked: Attention, device: torch.device) -> BackendName:
    """The backend of ``judge.attention`` on a device, the one place where devices differ.

    Raises:
        ConfigurationError: it does not run there.
    """
    if asked == "auto":
        if device.type == "cpu":
            return "cpu"
        if device.type == "cuda" and triton_there():
            return "triton"
        logger.warning(
            "Triton is not installed: attention runs as plain matrix products, several times "
            "slower; install the torch wheel for CUDA, which brings it"
        )
        return "reference"
    if asked == "cpu" and device.type != "cpu":
        raise ConfigurationError(
            f"judge.attention: cpu does not run on {device.type}; use auto, triton or reference"
        )
    if asked == "triton":
        if device.type != "cuda":
            raise ConfigurationError(
                f"judge.attention: triton does not run on {device.type}; use auto, cpu or reference"
            )
        if not triton_there():
            raise ConfigurationError(
                "judge.attention: triton is not installed; install the torch wheel for CUDA, which "
                "brings it, or use auto"
            )
    return asked


def triton_there() -> bool:
    """Whether Triton can be imported; wheels of torch for CPUs alone come without it."""
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # blocked: its place in sys.modules holds None
        return False


def make(name: BackendName, weights: TextWeights, *, compiled: bool = False) -> Backend:
    """A backend over weights. ``compiled`` fuses what lies between products with torch.compile,
    where the backend has no kernels of its own for it."""
    if name == "triton":
        # Imported here: Triton may not be there.
        from worker.judge.engine.triton_backend import TritonBackend

        if compiled:
            logger.warning("judge.compile is ignored: the Triton backend has fused kernels")
        return TritonBackend(weights)
    kernel = cpu_flash if name == "cpu" else matrix_products
    return TorchBackend(name, weights, kernel, compiled=compiled)
