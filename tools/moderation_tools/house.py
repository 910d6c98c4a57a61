"""``python -m moderation_tools.house``: the rooms of ``worker/``, their floors, arrows and circles.

A room is a package directly under ``worker/`` or a module beside them. An arrow is an import of one
room by another, wherever in a file it stands. A circle is a set of rooms, or of files, that import
each other, however many steps it takes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "worker"

Graph = Mapping[str, frozenset[str]]
"""Who imports whom: every node is a key."""


def module_name(file: Path) -> str:
    """``worker/judge/base.py`` is ``worker.judge.base``; a package has the name of its folder."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(file: Path) -> Iterator[tuple[str, str | None]]:
    """Every ``(module, name)`` a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def file_graph() -> Graph:
    """Modules of the package and the modules they import."""
    modules = files()
    graph: dict[str, frozenset[str]] = {}
    for module, file in modules.items():
        targets = (
            f"{source}.{name}" if f"{source}.{name}" in modules else source
            for source, name in imports(file)
        )
        graph[module] = frozenset(each for each in targets if each in modules and each != module)
    return graph


def room_of(module: str) -> str:
    """``worker.judge.engine.batch`` is in the room ``judge``; ``worker`` itself is the face."""
    return module.split(".")[1] if "." in module else module


def room_graph() -> Graph:
    """Rooms and the rooms they import."""
    graph: dict[str, set[str]] = {}
    for module, targets in file_graph().items():
        mine = graph.setdefault(room_of(module), set())
        mine |= {room_of(target) for target in targets} - {room_of(module)}
    return {room: frozenset(targets) for room, targets in graph.items()}


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected sets of more than one node (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            place = stack.index(node)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each node: one above the highest it imports; nodes of a circle have none."""
    known: dict[str, int] = {}
    waiting = set(graph)
    while ready := {node for node in waiting if graph[node] <= known.keys()}:
        level = {node: 1 + max((known[each] for each in graph[node]), default=0) for node in ready}
        known |= level
        waiting -= ready
    return known


def lines() -> int:
    """Lines of Python in the package."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files().values())


def main() -> None:
    """Print the house from the top floor down, then its circles."""
    rooms, modules = room_graph(), file_graph()
    by_floor = floors(rooms)
    for floor in sorted(set(by_floor.values()), reverse=True):
        names = sorted(room for room, level in by_floor.items() if level == floor)
        print(f"floor {floor:2}  {', '.join(names)}")
    arrows = sum(len(targets) for targets in rooms.values())
    print(f"rooms {len(rooms)}   arrows {arrows}   files {len(modules)}   lines {lines()}")
    for what, found in (("rooms", circles(rooms)), ("files", circles(modules))):
        print(f"circles of {what}: {len(found)}")
        for circle in found:
            print(f"  {', '.join(circle)}")


if __name__ == "__main__":
    main()
