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


def docstrings(path: Path) -> list[str]:
    """Return every docstring of a file: of the module, its classes and its functions."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, documented))
    return [text for text in map(ast.get_docstring, nodes) if text]


def defined_names(path: Path) -> set[str]:
    """Return what a file defines: itself, functions, classes, parameters, attributes and variables."""
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name.strip("_"))
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def parameters(function: ast.FunctionDef) -> list[str]:
    """Return the names of a function's parameters, without self and cls."""
    arguments = function.args
    names = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


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
