"""A room imports only from rooms below its own, and nobody imports private names."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_utils.store import ROOT

FLOORS = {
    "store": 0,
    "memory": 0,
    "topk": 0,
    "data": 1,
    "models": 2,
    "evaluation": 3,
    "ensembles": 4,
    "report": 5,
    "online": 5,
    "serving": 6,
    "pipeline": 7,
    "check": 8,
    "scalable": 8,
    "experiment": 8,
    "lists": 8,
}
PACKAGE = sorted((ROOT / "recsys_utils").rglob("*.py"))
LAB = sorted((ROOT / "notebooks" / "lab").rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of our own code in a file; name is "" for `import module`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield node.module or "", alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""


def room_of(module: str) -> str | None:
    """The room of a dotted module name of the package; None for the package itself and others."""
    parts = module.split(".")
    is_ours = parts[0] == "recsys_utils" and len(parts) > 1
    return parts[1] if is_ours else None


def room_of_file(path: Path) -> str:
    first = path.relative_to(ROOT / "recsys_utils").parts[0]
    return first.removesuffix(".py")


def test_every_file_has_a_room() -> None:
    rooms = {room_of_file(path) for path in PACKAGE}
    assert rooms == {*FLOORS, "__init__"}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_below(path: Path) -> None:
    room = room_of_file(path)
    for module, name in imports(path):
        assert module.split(".")[0] != "lab", f"{path}: the package imports no notebook's helper"
        other = room_of(f"{module}.{name}" if module == "recsys_utils" else module)
        if other in FLOORS and other != room:
            assert FLOORS[other] < FLOORS[room], f"{path}: {room} imports {other}"


@pytest.mark.parametrize("path", [*PACKAGE, *LAB], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_crosses_a_file(path: Path) -> None:
    """What begins with an underscore belongs to its own file."""
    for module, name in imports(path):
        is_ours = module.split(".")[0] in ("recsys_utils", "lab")
        is_private = name.startswith("_") and not name.startswith("__")
        assert not (is_ours and is_private), f"{path} imports {name} of {module}"


def test_no_two_files_of_a_room_import_each_other() -> None:
    """The graph of imports inside the package has no circle."""
    modules = {}
    for path in PACKAGE:
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        modules[dotted.removesuffix(".__init__")] = path
    arrows = {}
    for name, path in modules.items():
        targets = set()
        for module, imported in imports(path):
            for candidate in (f"{module}.{imported}", module):
                if candidate in modules:
                    targets.add(candidate)
                    break
        arrows[name] = targets - {name}
    assert not find_circle(arrows)


def find_circle(arrows: dict[str, set[str]]) -> list[str]:
    """A walk along arrows that ends where it began, or [] where there is none."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :] + [name]
        if name in finished:
            return []
        for target in sorted(arrows[name]):
            if circle := visit(target, [*path, name]):
                return circle
        finished.add(name)
        return []

    for name in sorted(arrows):
        if circle := visit(name, []):
            return circle
    return []


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
