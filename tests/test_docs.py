"""Every command in the README and docs runs, save for those that need data, a GPU or an installation."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dots_zoo.commands.cli import main
from helpers.matrix import slow
from helpers.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# run by .ci/run, and at a smaller size by test_demo.py and test_tables.py
ELSEWHERE = ("make ", "pip install", "dots-zoo demo", "dots-zoo tables --out runs/tables")
NEEDS = (
    "runs/photos",  # tests/train/test_own_images.py
    "cifar10 --data-root",
    "image_folder --data-root",
    "--device cuda",
    "--device cpu cuda",
    "old.json",
    "nvidia-smi",
    "export LD_LIBRARY_PATH",
    "accelerate launch",
    "--data-root",
    "--plugin my_search.py",  # tests/plugins/test_example.py
    " predict ",
    " curves runs/",
    "torchrun",
    "tools/test.py",
    "--images",
    "dots_zoo.train.half_weights runs/tiny",
    "--task detect",
    "--task segment",
)


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    found = []
    for language, text in blocks(page):
        if page.name in ("clients.md", "quickstart.md"):  # tests/clients/test_page.py, test_quickstart.py
            continue
        if language == "python":
            found.append(["python", "-c", text])
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if (
                line.strip()
                and not line.startswith((*ELSEWHERE, "#"))
                and not any(need in line for need in NEEDS)
            ):
                words = shlex.split(line, comments=True)
                assert words[0] in ("dots-zoo", "python"), f"{page.name}: how is {line!r} to be run?"
                found.append(words)
    return found


def status_of(words: list[str]) -> object:
    """What a command returns: dots-zoo here, Python in a process of its own, where it may register names."""
    if words[0] == "python":
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, *words[1:]], env=environment).returncode
    try:
        return main(words[1:])
    except SystemExit as end:
        return end.code


# export.md takes minutes: whole networks. README.md, test_to_onnx.py and test_precision.py do the same.
@pytest.mark.processes
@pytest.mark.parametrize(
    "page", [slow(page) if page.name == "export.md" else page for page in PAGES], ids=lambda page: page.name
)
def test_commands_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        assert status_of(words) == 0, f"{shlex.join(words)}\n{capfd.readouterr()}"


@pytest.mark.processes
def test_make_says_what_it_installs_before_it_does() -> None:
    make = ["make", "--dry-run", "--always-make", "-C", str(ROOT), "demo"]
    lines = subprocess.run(make, capture_output=True, text=True, check=True).stdout.splitlines()
    [install] = [index for index, line in enumerate(lines) if "[search,train,export]" in line]
    assert lines[install - 1].startswith('echo "installing PyTorch') and "--quiet" not in lines[install]


def test_the_readme_shows_the_main_job_on_its_first_screen() -> None:
    first_screen = (ROOT / "README.md").read_text().splitlines()[:20]
    assert "make demo" in "\n".join(first_screen) and "make test" in "\n".join(first_screen)
    picture = next(line for line in first_screen if line.startswith("!["))
    assert (ROOT / re.search(r"\((.*?)\)", picture)[1]).is_file()


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_has_a_command_or_is_plain_text() -> None:
    assert sum(bool(commands(page)) for page in PAGES) >= 4


ROW = re.compile(r"^\| [^|]+ \| `([^`|]+\.py)` \| (`.+`) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "CONTRIBUTING.md").read_text())


def test_contributing_says_where_things_are() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("path", "names"), ROWS)
def test_what_contributing_names_is_there(path: str, names: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert set(re.findall(r"`(\w+)`", names)) <= defined


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_and_tests_that_a_page_names_are_there(page: Path) -> None:
    """A path is written from the root of the repository, or from the package's folder."""
    text = page.read_text()
    for path in set(re.findall(r"`((?:\w+/)+\w+\.py)\b", text)) - {"tools/test.py"}:  # MMDetection's
        assert (ROOT / path).is_file() or (ROOT / "dots_zoo" / path).is_file(), f"{page.name}: {path}"
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, f"{page.name}: {name}"
