"""The imports of a package, read from its source without executing it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]
"""Dotted module: the modules of the same package that it imports."""


def read_imports(package: Path) -> Graph:
    """Every import of one module by another, also those inside functions and under TYPE_CHECKING.

    `from package import name` counts as the package's own module only if `name` is neither a module nor `__version__`,
    which has to stand there.
    """
    files = {_dotted(file, package): file for file in sorted(package.rglob("*.py"))}
    graph: Graph = {module: set() for module in files}
    for module, file in files.items():
        for name in _imported(ast.parse(file.read_text()), package.name):
            if name == f"{package.name}.__version__":
                continue
            found = name
            while found not in files:
                found = found.rpartition(".")[0]
            graph[module].add(found)
    return graph


def _dotted(file: Path, package: Path) -> str:
    parts = (package.name, *file.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == package)


def unit(module: str) -> str:
    """The package or root module that a module belongs to, `__init__` for the root itself."""
    return (*module.split("."), "__init__")[1]


def between_units(graph: Graph) -> dict[tuple[str, str], list[str]]:
    """Pairs of units of which the first imports the second, with the imports that do."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module, imported in graph.items():
        for other in imported:
            if unit(module) != unit(other):
                found[unit(module), unit(other)].append(f"{module} imports {other}")
    return found


def circle(graph: Graph) -> list[str]:
    """The modules of an import circle, in order; empty if there is none."""
    done: set[str] = set()

    def follow(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph[module] - {module}):
            if found := follow(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := follow(module, []))), [])
