"""Generated cases are not timed: a busy machine must not turn a promise red."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("contracts", deadline=None)
settings.load_profile("contracts")
