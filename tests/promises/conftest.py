"""A place for the workers of one test."""

from __future__ import annotations

from tests.support.worker_place import place as place
