"""Checkpoints that come with the worker."""

from pathlib import Path

TINY = Path(__file__).parent / "tiny"
"""The demonstration checkpoint: a small vocabulary, ``moderation_tools.training.tiny``."""
