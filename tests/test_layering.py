"""Imports point one way: search -> dots_zoo <- export, and the commands are the only composition root."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = {"cli.py", "demo.py"}  # may import search and export inside the function that runs a command


def imports(path: Path) -> list[tuple[str, bool]]:
    """(absolute dotted name, whether it stands at module level) of everything a file imports."""
    tree = ast.parse(path.read_text())
    package = ["dots_zoo"] if path.parent.name == "dots_zoo" else ["dots_zoo", path.parent.name]
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            names = [*base, *([node.module] if node.module else [])]
            found += [(".".join([*names, alias.name]), id(node) in top) for alias in node.names]
    return found


def layer(name: str) -> str:
    """'search', 'export', 'det_configs', 'seg_configs', 'dots_zoo', or '' for everything else."""
    parts = name.split(".")
    folders = ("search", "export", "det_configs", "seg_configs")
    if parts[0] in folders:
        return parts[0]
    if parts[0] != "dots_zoo":
        return ""
    return parts[1] if len(parts) > 1 and parts[1] in folders else "dots_zoo"


FILES = sorted(
    path
    for folder in ("dots_zoo", "search", "export", "det_configs", "seg_configs")
    for path in ROOT.glob(f"{folder}/*.py")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_arrows(path: Path) -> None:
    own = path.parent.name
    for name, at_module_level in imports(path):
        target = layer(name)
        if target in ("", "dots_zoo", own):
            continue
        assert own == "dots_zoo" and path.name in ROOTS, f"{own}/{path.name} imports {name}"
        assert not at_module_level, f"{path.name} imports {name} before a command runs"


@pytest.mark.parametrize("folder", ["search", "export"])
def test_siblings_are_imported_relatively_and_keep_no_state(folder: str) -> None:
    for path in ROOT.glob(f"{folder}/*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert not (node.module or "").startswith((folder, f"dots_zoo.{folder}")), (
                    f"{path}: {node.module}"
                )
            assert not isinstance(node, ast.Global), path


def test_the_walk_sees_relative_and_nested_imports(tmp_path: Path) -> None:
    path = tmp_path / "search" / "bad.py"
    path.parent.mkdir()
    path.write_text(
        "from .relax import mix\ndef f():\n  from dots_zoo.export.graph import count\n  import dots_zoo.zoo\n"
    )
    found = imports(path)
    assert ("dots_zoo.search.relax.mix", True) in found
    assert ("dots_zoo.export.graph.count", False) in found
    assert [layer(name) for name, _ in found] == ["search", "export", "dots_zoo"]


def test_importing_the_core_stays_light() -> None:
    """Neither a command's packages nor the extras are loaded by `import dots_zoo`."""
    import subprocess
    import sys

    code = "import sys, timm; before = set(sys.modules); import dots_zoo; print(*(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "docs"
    ).stdout
    heavy = {
        "matplotlib",
        "onnx",
        "onnxruntime",
        "accelerate",
        "sklearn",
        "jsonargparse",
        "mmengine",
        "tensorboard",
        "argparse",
    }
    assert {name.split(".")[0] for name in loaded.split()} & heavy == set()
    assert not {name for name in loaded.split() if layer(name) in ("search", "export")}
