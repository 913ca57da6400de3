"""Every command runs with what its extra brings and nothing else: each extra in an environment of its own."""

import json
import os
import subprocess
import tomllib
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from dots_zoo.commands import doctor
from dots_zoo.openmm.progress import quiet
from helpers.paths import ROOT

with quiet():
    from helpers.tiny_mm import make_camvid, make_coco, write_config

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# One process for all commands of an environment: importing torch takes longer than most of them.
DRIVER = """
import contextlib, io, json, sys
from dots_zoo.commands.cli import main

results = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            code = f"{words}: {type(error).__name__}: {error}"
    results.append((code, out.getvalue(), err.getvalue()))
json.dump(results, open("results.json", "w"))
"""

SEARCH = (
    "search dots --data digits --epochs 1 --warm-up 0 --layers 3 --topology-search.epochs 1 "
    "--topology-search.layers 3 --channels 2 --training.batch-size 720 --out found"
)
TRAIN = "train darts_v1 --data digits --channels 2 --layers 3 --batch-size 512 --epochs 1 --out net"
BENCH = (
    "bench m.onnx --batch 1 --seconds 0 --iterations 2 --rounds 2 --max-spread 9999% --no-memory "
    "-o bench.json"
)

# extra -> commands that it is for, in order, and words that they print
RUNS: dict[str, dict[str, str]] = {
    "": {
        "list dots_cifar10_tiny": "M params",
        "list --cells": "darts_v2",
        "doctor": "extra mm       missing",
    },
    "search": {
        SEARCH: "written to found",
        "explain skip found": "skip.json",
        "draw found/genotype.json -o cell.svg": "cell.svg",
        "doctor": "extra search   complete",
    },
    "train": {
        TRAIN: "test images of digits",
        "eval local-dir:net --pretrained --data digits": "% of 355 test images",
        "draw darts_v2 -o cell.png": "cell.png",
        "doctor": "extra train    complete",
    },
    "export": {
        "export dots_cifar10_tiny --pretrained --exporter torchscript -o m.onnx": "parity",
        "export dots_cifar10_tiny --precision fp16 --exporter torchscript -o half.onnx": "parity",
        "export test_resnet --input 64x64 --num-classes 10 -o dynamo.onnx": "parity",
        "inspect m.onnx": "MACs",
        BENCH: "written: bench.json",
        "report bench.json -o report.html": "report.html",
        "compare bench.json bench.json": "0 of 2 fail",
        "tables --counts-only --only dots_cifar10_tiny --out tables": "tables.html",
        "draw darts_v2 -o cell.svg": "cell.svg",
        "doctor": "extra export   complete",
    },
    "mm": {
        "det check det.py --input 64x64": "parameters changed",
        "det train det.py --data-root bccd --out boxes": "after 1 epochs",
        # it finds nothing after one epoch, so that there are no metrics to print
        "det test det.py boxes/epoch_1.pth --data-root bccd": "",
        "det curves boxes -o curves.png": "curves.png",
        "det predict det.py boxes/epoch_1.pth photo.jpg -o drawn": "drawn into drawn",
        "seg check seg.py --input 64x64": "parameters changed",
        "seg train seg.py --data-root camvid --out labels": "after 1 epochs",
        "seg test seg.py labels/epoch_1.pth --data-root camvid": "mIoU",
        "seg predict seg.py labels/epoch_1.pth photo.jpg -o painted": "drawn into painted",
        "draw darts_v2 -o cell.svg": "cell.svg",
        "doctor": "extra mm       complete",
    },
}

# A command that needs more than it finds, the extras that it may be run with, and those that it asks for.
REFUSALS: dict[str, tuple[set[str], str]] = {
    "search dots --data digits --out no": ({"search", "train"}, "search"),
    "explain skip found": ({"search", "train"}, "search"),
    "train darts_v1 --data digits --out no": ({"search", "train"}, "train"),
    "eval darts_v1 --data digits": ({"search", "train"}, "train"),
    "export dots_cifar10_tiny -o no.onnx": ({"export"}, "export"),
    "inspect no.onnx": ({"export"}, "export"),
    "bench no.onnx -o no.json": ({"export"}, "export"),
    "report no.json -o no.html": ({"export"}, "export"),
    "compare no.json no.json": ({"export"}, "export"),
    "tables --out no": ({"export"}, "export"),
    "det check retinanet_dots_imagenet_fpn_1x_coco": ({"mm"}, "mm"),
    "seg check bisenetv1_dots_imagenet_camvid": ({"mm"}, "mm"),
    "demo --out no": (set(), "search,export"),
    "draw darts_v2 -o no.svg": ({"search", "train", "export", "mm"}, "search"),
}


class Result(NamedTuple):
    code: Any
    out: str
    err: str


def holds(requirement: Requirement, extras: Iterable[str]) -> bool:
    """True where its marker is, for a distribution that was asked for with `extras`."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras))


def closure(extra: str) -> set[str]:
    """The distributions that `pip install dots-zoo[extra]` brings on this platform.

    Our own requirements are read from pyproject.toml: installed metadata is as old as the installation.
    """
    lines = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else [])]
    todo = [requirement for requirement in map(Requirement, lines) if holds(requirement, ())]
    seen: dict[tuple[str, frozenset[str]], None] = {}
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen[key] = None
        own = [Requirement(line) for line in metadata.requires(requirement.name) or []]
        todo += [other for other in own if holds(other, requirement.extras)]
    return {name for name, _ in seen}


def environment(folder: Path, distributions: Iterable[str]) -> Path:
    """Make a virtual environment that holds exactly these distributions, as links; its Python."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    [site] = folder.glob("lib/python*/site-packages")
    for name in distributions:
        distribution = metadata.distribution(name)
        files = distribution.files or []
        assert files, f"{name}: installed without a list of its files"
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (site / top).exists():  # two distributions may share a package
                (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder / "bin" / "python"


def prepare(folder: Path) -> None:
    """Data and configs of the commands of [mm]."""
    write_config(folder / "det.py", "det", 1)
    write_config(folder / "seg.py", "seg", 1)
    make_coco(folder / "bccd", {"train": 4, "val": 2, "test": 2})
    make_camvid(folder / "camvid", {"train": 4, "val": 2, "test": 2})
    Image.new("RGB", (64, 64), "red").save(folder / "photo.jpg")


def run(python: Path, commands: list[list[str]], folder: Path) -> list[Result]:
    """What each command returned and printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", DRIVER],
        cwd=folder,
        input=json.dumps(commands),
        env={**own, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [Result(*result) for result in json.loads((folder / "results.json").read_text())]


@pytest.mark.processes
@pytest.mark.parametrize("extra", RUNS)
def test_an_extra_is_enough_for_its_commands_and_others_name_theirs(extra: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", {*closure(extra), "dots-zoo"})
    if extra == "mm":
        prepare(tmp_path)
    refused = [line for line, (enough, _) in REFUSALS.items() if extra not in enough]
    runs = RUNS[extra]
    results = run(python, [line.split() for line in (*runs, *refused)], tmp_path)
    for line, words, result in zip(runs, runs.values(), results, strict=False):
        assert result.code == 0 and words in result.out, (line, result)
    for line, result in zip(refused, results[len(runs) :], strict=True):
        assert result.code == 2 and result.out == "", (line, result)
        [sentence] = result.err.splitlines()
        assert "pip install " in sentence and sentence[:-1].endswith(f"dots-zoo[{REFUSALS[line][1]}]"), (
            sentence
        )
    assert not list(tmp_path.glob("no*"))


def test_the_module_of_every_requirement_leads_to_the_extras_that_ask_for_it() -> None:
    distributions = metadata.packages_distributions()
    for extra in doctor.EXTRAS:
        for name in doctor.requirements(extra):
            module = doctor.MODULES.get(name, name)
            if doctor.installed(name):
                assert name in map(canonicalize_name, distributions[module])
            assert extra in doctor.extras_with(module)
    assert doctor.extras_with("accelerate") == ["search", "train"] and doctor.extras_with("torch") == []
