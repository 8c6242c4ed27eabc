"""Rooms, arrows and circles of imports: `python tests/import_graph.py [src/blemish]`.

A room is a folder or a module on the top floor. An arrow counts the pairs of files that import from one room into
another, at any depth, for type checkers, and by strings that name a module. A circle is a set of files that can reach
each other. What points upwards by design is left out of it: package files, addresses that only re-export, and the two
doors of `tests/test_architecture.py`, `save` and `export`.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

DOORS = {("models.base", "artifact"), ("models.base", "export.exporting")}


def edges(root: Path) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    paths = {_name(path, root): path for path in sorted(root.rglob("*.py"))}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {one if one in paths else node.module for one in inner}
            elif isinstance(node, ast.Constant) and node.value in paths and node.value != root.name:
                targets.add(str(node.value))
        found[name] = (targets & paths.keys()) - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of two or more modules that reach each other."""
    reach = {name: _reachable(name, graph) for name in graph}
    groups = {tuple(sorted(o for o in reach[name] if name in reach.get(o, set()))) for name in graph}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def main(root: Path) -> None:
    """Prints the graph."""
    graph = edges(root)
    lines: Counter[str] = Counter()
    for path in root.rglob("*.py"):
        lines[_room(_name(path, root))] += len(path.read_text(encoding="utf-8").splitlines())
    arrows = Counter((_room(a), _room(b)) for a, others in graph.items() for b in others if _room(a) != _room(b))
    print("lines per room:", ", ".join(f"{room} {count}" for room, count in sorted(lines.items())))
    print(f"{len(lines)} rooms, {len(graph)} files, {len(arrows)} arrows between rooms, {sum(arrows.values())} imports")
    both = sorted({tuple(sorted(pair)) for pair in arrows if pair[::-1] in arrows})
    print("rooms that import each other:", ", ".join(" <-> ".join(pair) for pair in both) or "none")
    shims = {_name(path, root) for path in root.rglob("*.py") if path.stem == "__init__" or _only_re_exports(path)}
    doors = {tuple(f"{root.name}.{end}" for end in door) for door in DOORS}
    inside = {
        name: {other for other in others - shims if (name, other) not in doors}
        for name, others in graph.items()
        if name not in shims
    }
    found = circles(inside)
    print("circles of files:", "; ".join(f"{len(group)}: {', '.join(group)}" for group in found) or "none")


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return seen


def _only_re_exports(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return not any(isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name != "__dir__" for node in body)


def _name(path: Path, root: Path) -> str:
    return ".".join((root.name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "src/blemish"))
