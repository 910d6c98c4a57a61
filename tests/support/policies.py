"""Policies for tests: a valid one as values, as YAML and as a file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import yaml

from worker.policy.model import Policy
from worker.policy.parse import parse_policy


def policy_values(**fields: Any) -> dict[str, Any]:
    """The fields of a valid policy, some of them replaced; None leaves a field out."""
    values: dict[str, Any] = {
        "name": "sample",
        "version": 1,
        "owner": "owner@example.com",
        "topics": ["sample.conversations"],
        "description": "Conversations of a sample.",
        **fields,
    }
    return {name: value for name, value in values.items() if value is not None}


def policy_yaml(**fields: Any) -> str:
    """A policy file."""
    return yaml.safe_dump(policy_values(**fields), sort_keys=False, allow_unicode=True)


def make_policy(**fields: Any) -> Policy:
    """A parsed policy."""
    return parse_policy(policy_yaml(**fields), file="policies/sample.yaml")


def write_policy(directory: Path, file: str, **fields: Any) -> Path:
    """A policy file on disk, as one that nobody has touched for a while."""
    path = directory / file
    path.write_text(policy_yaml(**fields), encoding="utf-8")
    return untouched(path)


def untouched(path: Path) -> Path:
    """The file with a date of an hour ago: a younger one is read only when two looks agree."""
    past = time.time() - 3_600
    os.utime(path, (past, past))
    return path
