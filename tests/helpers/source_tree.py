"""The source of the packages as data: files, modules, and what imports what."""

import ast
from pathlib import Path

from helpers.paths import ROOT

PACKAGES = ("dots_zoo", "search", "export")
CONFIGS = ("det_configs", "seg_configs")


def sources(*folders: str, root: Path = ROOT) -> list[Path]:
    """Return the Python files below some folders of the repository, in order."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def module_name(path: Path, root: Path = ROOT) -> str:
    """Return the dotted name: search/relax.py is dots_zoo.search.relax, an __init__.py is its package."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    parts = parts if parts[0] == "dots_zoo" else ["dots_zoo", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path = ROOT) -> list[tuple[str, bool]]:
    """Return (absolute dotted name, whether it stands at module level) of all that a file imports."""
    tree = ast.parse(path.read_text("utf-8"))
    own = module_name(path, root)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    top = {id(node) for node in tree.body}
    names: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = parts[: len(parts) + 1 - node.level] if node.level else []
            prefix = [*base, *([node.module] if node.module else [])]
            names += [(".".join([*prefix, alias.name]), id(node) in top) for alias in node.names]
    return names


def arrows(*folders: str, root: Path = ROOT) -> dict[str, set[str]]:
    """Return module -> the modules of the project that it imports anywhere, in functions and for types too.

    A package's `__init__` only hands names on, so an arrow to one counts and its own do not.
    """
    paths = {module_name(path, root): path for path in sources(*folders, root=root)}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = {name for name, _ in imports(path, root)}
        targets = {name if name in paths else name.rpartition(".")[0] for name in names} & paths.keys()
        found[module] = set() if path.name == "__init__.py" else targets - {module}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other."""
    reach = {start: _reached(graph, start) for start in graph}
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += graph.get(node, ())
    return seen
