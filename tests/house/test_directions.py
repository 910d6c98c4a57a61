"""The house rules that a reader relies on: who may import what, and in which direction."""

from __future__ import annotations

import ast

import pytest

from moderation_tools import house

LIBRARIES = {
    "torch": ("judge/",),
    "transformers": ("judge/",),
    "peft": ("judge/",),
    "triton": ("judge/",),
    "faust": ("log/", "app.py", "cli/run.py"),
    "mode": ("log/", "app.py"),
    "aiokafka": ("log/kafka/",),
    "boto3": ("media/",),
    "botocore": ("media/",),
}
"""Libraries and the only places of the package that may import them."""

FILES = {
    file.relative_to(house.PACKAGE).as_posix(): {name for name, _ in house.imports(file)}
    for file in house.files().values()
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_in_its_room(library: str) -> None:
    """A second place that knows a library is a second place that breaks when it changes."""
    strays = [
        place
        for place, names in FILES.items()
        if library in {name.partition(".")[0] for name in names}
        and not place.startswith(LIBRARIES[library])
    ]
    assert strays == []


def test_nothing_imports_the_app_but_commands() -> None:
    """The Faust app is made where it is imported: only a command may want that."""
    importers = {place for place, names in FILES.items() if "worker.app" in names}
    assert {place for place in importers if not place.startswith("cli/")} == set()


def test_rooms_import_each_other_in_one_direction() -> None:
    """No arrow back up, over all pairs of rooms: a circle of rooms is one room in disguise."""
    assert house.circles(house.room_graph()) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Files in a circle can only be read, and only be loaded, together."""
    assert house.circles(house.file_graph()) == []


def test_a_circle_is_found() -> None:
    """The two tests above would pass for ever if circles were never seen."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert house.circles({node: frozenset(to) for node, to in graph.items()}) == [["a", "b", "c"]]


def test_every_module_says_what_it_holds() -> None:
    """The first line of a file is the map of its room."""
    silent = [
        name
        for name, file in house.files().items()
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert silent == []
