"""CONTRIBUTING's map of the house is the house."""

from __future__ import annotations

import re

from moderation_tools import house
from tests.support.tools import REPOSITORY

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text()
MAP = PAGE.split("## The map of the house")[1].split("\n## ")[0]


def test_every_room_is_on_the_map_and_every_place_on_the_map_is_there() -> None:
    """A newcomer finds a room by the map, and finds no door that leads nowhere."""
    rows = re.findall(r"^\| (`.+?`) \|", MAP, re.MULTILINE)
    places = {place for row in rows for place in re.findall(r"`([^`]+)`", row)}
    assert {place for place in places if not (REPOSITORY / place).exists()} == set()

    rooms = {
        f"worker/{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in house.PACKAGE.iterdir()
        if not entry.name.startswith("_") and entry.name != "py.typed"
    }
    assert rooms - places == set()
