"""Checkpoints that come with the worker."""

from pathlib import Path

TINY = Path(__file__).parent / "tiny"
"""The demonstration checkpoint: a small vocabulary, made by ``python -m worker.training.tiny``."""
