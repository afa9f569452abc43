"""Which of our own files a notebook's code depends on, so that a change runs it again."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Lock

from recsys_utils.store import ROOT

# Where each of our packages lies.
HOMES = {"recsys_utils": ROOT, "lab": ROOT / "notebooks"}

# CPython 3.11 counts the parser's recursion depth for all threads together:
# https://github.com/python/cpython/issues/106905
PARSER = Lock()


def imported_files(code: str) -> set[Path]:
    """Our own files that a piece of code imports, directly or through one another."""
    files: set[Path] = set()
    waiting = [code]
    while waiting:
        new = set(_imported_directly(waiting.pop())) - files
        files |= new
        waiting += [path.read_text() for path in new]
    return files


def _imported_directly(code: str) -> Iterator[Path]:
    try:
        with PARSER:
            names = _imported_names(code)
    except SyntaxError:
        # The notebook fails when it runs; until then it depends on everything.
        for package, home in HOMES.items():
            yield from (home / package).rglob("*.py")
        return
    for name in names:
        yield from _files_of(name)


@cache
def _imported_names(code: str) -> tuple[str, ...]:
    """Dotted names of modules, and of what is imported from them: `a.b` and `a.b.c`."""
    is_magic = re.compile(r"\s*[%!]|.*=\s*[%!]").match
    plain = "\n".join(line for line in code.splitlines() if not is_magic(line))
    names = []
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(name for name in names if name.split(".")[0] in HOMES)


def _files_of(name: str) -> Iterator[Path]:
    """The module of a dotted name and the packages above it; all of a package that is lazy."""
    parts = name.split(".")
    home = HOMES[parts[0]]
    for depth in range(1, len(parts) + 1):
        path = home.joinpath(*parts[:depth])
        module = path.with_suffix(".py")
        package = path / "__init__.py"
        if module.is_file():
            yield module
        if package.is_file():
            yield package
            if "def __getattr__" in package.read_text():
                yield from path.rglob("*.py")
