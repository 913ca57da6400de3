"""The tree: arrows point one way, no circles, rooms of a readable size, and the wheel holds every room."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.source_tree import CONFIGS, PACKAGES, arrows, circles, imports, module_name, parameters, sources

# May import search and export, but not as they are imported: when a command runs, or on a name's first use.
COMPOSITION = {
    "dots_zoo/__init__.py",
    *(f"dots_zoo/commands/{path.name}" for path in sources("dots_zoo/commands")),
}
MOST_MODULES, MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 16, 300, 60, 8
UNLIMITED = {"search/methods"}  # one record a file
FILES = sources(*PACKAGES, *CONFIGS)

# Functions that may take more than MOST_PARAMETERS, with the reason.
MANY_PARAMETERS = {
    "search/run/run.py run_search": "stands for the command `search`: its options",
    "dots_zoo/network.py __init__": "built by timm.create_model: its arguments",
    "dots_zoo/kernels/simd.py add_windows": "an instruction of a compiled loop: vectors, offsets and strides",
    "dots_zoo/openmm/backbone.py __init__": "built from a config of mmengine: its entries",
}

# The only importers of the kernels: the fast path of a supernet and that of a network, both imported lazily.
SUPERNET_FAST_PATH = {"search/supernet/fast_cell.py", "search/supernet/sep_conv_blocks.py"}
KERNEL_IMPORTERS = {*SUPERNET_FAST_PATH, "dots_zoo/train/model.py"}


def layer(name: str) -> str:
    """Return 'search', 'export', 'det_configs', 'seg_configs', 'dots_zoo', or '' for everything else."""
    parts = name.split(".")
    folders = ("search", "export", *CONFIGS)
    if parts[0] in folders:
        return parts[0]
    if parts[0] != "dots_zoo":
        return ""
    return parts[1] if len(parts) > 1 and parts[1] in folders else "dots_zoo"


ROOMS = {module_name(path) for path in FILES if path.name == "__init__.py"} - {"dots_zoo"}


def room(module: str) -> str:
    """Return the folder that a module lies in: its purpose; the core's own modules lie between the rooms."""
    parent = module.rpartition(".")[0]
    return module if module in ROOMS or parent not in ROOMS else parent


def test_the_tree_is_seen() -> None:
    """A glob that matches nothing would let every test below pass."""
    assert len(FILES) > 150
    assert {layer(module_name(path)) for path in FILES} == {"dots_zoo", "search", "export", *CONFIGS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_search_and_export_rest_on_the_core_and_never_on_each_other(path: Path) -> None:
    own = layer(module_name(path))
    for name, at_module_level in imports(path):
        target = layer(name)
        if target in ("", "dots_zoo", own):
            continue
        assert path.relative_to(ROOT).as_posix() in COMPOSITION, f"{path} imports {name}"
        assert not at_module_level, f"{path} imports {name} before it is needed"


@pytest.mark.parametrize("folder", ["search", "export"])
def test_siblings_are_imported_relatively_and_keep_no_state(folder: str) -> None:
    for path in sources(folder):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert not (node.module or "").startswith((folder, f"dots_zoo.{folder}")), path
            assert not isinstance(node, ast.Global), path


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows(*PACKAGES)) == []


def test_rooms_import_each_other_in_one_direction() -> None:
    rooms: dict[str, set[str]] = {}
    for module, targets in arrows(*PACKAGES).items():
        rooms.setdefault(room(module), set()).update({room(target) for target in targets} - {room(module)})
    assert circles(rooms) == []


def importers(prefix: str, *, at_module_level: bool = False) -> set[str]:
    """Return the files outside the kernels that import a package or a module of it."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if path.parent.name != "kernels"
        for name, on_top in imports(path)
        if f"{name}.".startswith(f"{prefix}.") and (on_top or not at_module_level)
    }


def test_only_those_who_install_the_kernels_import_them_and_not_before_they_do() -> None:
    assert importers("dots_zoo.kernels") == KERNEL_IMPORTERS
    assert importers("dots_zoo.kernels", at_module_level=True) == SUPERNET_FAST_PATH
    for path in SUPERNET_FAST_PATH:
        eager = importers(module_name(ROOT / path), at_module_level=True)
        assert eager <= SUPERNET_FAST_PATH and importers(module_name(ROOT / path))
    assert importers("numba") | importers("llvmlite") == set()
    assert importers("ctypes") == {"dots_zoo/runtime/malloc.py", "dots_zoo/runtime/free_memory.py"}


def test_a_circle_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / "a.py").write_text("def f():\n  from .b import g\n")
    (folder / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from dots_zoo.search import a\n"
    )
    graph = arrows("search", root=tmp_path)
    assert circles(graph) == [["dots_zoo.search.a", "dots_zoo.search.b"]]


def test_a_room_can_be_walked_through() -> None:
    folders = Counter(
        path.parent.relative_to(ROOT).as_posix() for path in sources(*PACKAGES) if path.name != "__init__.py"
    )
    assert {
        folder: count for folder, count in folders.items() if count > MOST_MODULES and folder not in UNLIMITED
    } == {}
    assert max(Counter(path.parent for path in sources("tests")).values()) <= 40


@pytest.mark.parametrize(
    ("marker", "sign"),
    [
        ("processes", r"subprocess\.(run|Popen)\(|os\.fork\("),
        ("gpu", r"skipif\(not torch\.cuda\.is_available"),
        ("gpu_stub", r"\bGpu\(.*\.install\("),
    ],
)
def test_tests_have_their_markers(marker: str, sign: str) -> None:
    """Some test of every file that does what a marker stands for has it."""
    files = {path: path.read_text("utf-8") for path in sources("tests") if path.name.startswith("test_")}
    concerned = {path for path, text in files.items() if re.search(sign, text)}
    assert concerned and not {path for path in concerned if f"mark.{marker}\n" not in files[path]}


def test_files_and_functions_can_be_read_at_once() -> None:
    long = []
    for path in sources(*PACKAGES):
        text = path.read_text("utf-8")
        if text.count("\n") > MOST_LINES:
            long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_functions_take_few_parameters() -> None:
    many = {
        f"{path.relative_to(ROOT).as_posix()} {node.name}"
        for path in sources(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and len(parameters(node)) > MOST_PARAMETERS
    }
    assert many == set(MANY_PARAMETERS)


def test_the_wheel_holds_every_room() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {module_name(path) for path in FILES if path.name == "__init__.py"}
    assert sorted(listed) == sorted(rooms - {"dots_zoo.entry"} | {"dots_zoo_command"})  # entry ships under it
    missing = {path.parent for path in FILES} - {path.parent for path in FILES if path.name == "__init__.py"}
    assert missing == set()


@pytest.mark.processes
def test_importing_the_core_stays_light() -> None:
    """Neither a command's packages nor the extras are loaded by `import dots_zoo`."""
    code = "import sys, timm; before = set(sys.modules); import dots_zoo; print(*(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "docs"
    ).stdout.split()
    heavy = {
        "matplotlib",
        "onnx",
        "onnxruntime",
        "accelerate",
        "sklearn",
        "jsonargparse",
        "mmengine",
        "numba",
        "tensorboard",
        "argparse",
    }
    assert {name.split(".")[0] for name in loaded} & heavy == set()
    assert not {name for name in loaded if layer(name) in ("search", "export")}
