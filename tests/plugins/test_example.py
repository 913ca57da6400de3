"""The example of a method, an operation and a space, each command in a process of its own with --plugin."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dots_zoo.commands.cli import main
from helpers.paths import ROOT

SEARCH = (
    "--data digits --train-fraction 0.2 --epochs 1 --layers 3 --channels 2 --training.batch-size 64 "
    "--checkpoint-seconds 0 --out runs/s"
)
PAIRS = "--topology pairs --topology-search.epochs 2 --topology-search.layers 3"
TRAIN = "--data digits --train-fraction 0.2 --channels 4 --layers 3 --epochs 1 --aux-weight 0 --out runs/net"
NEEDED = (
    "expected the plug-in my_search.py, which registers depthwise_3x3, got none: add --plugin my_search.py"
)


@pytest.fixture(autouse=True)
def _beside_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "docs/examples/my_search.py", tmp_path)
    monkeypatch.chdir(tmp_path)


def run(command: str) -> str:
    """Run a command with the plug-in in a process of its own; return what it printed."""
    # -P: the folder is not on the import path, as it is not for the script dots-zoo
    words = [sys.executable, "-P", "-m", "dots_zoo", *command.split(), "--plugin", "my_search.py"]
    answer = subprocess.run(words, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def take_back(search: Path) -> None:
    """Take a search back by a step, as if it had been killed there."""
    (search / "genotype.json").unlink()
    max((search / "checkpoint").iterdir()).unlink()


def cells(path: Path) -> dict[str, Any]:
    """Return a genotype without its provenance, which holds seconds."""
    genotype: dict[str, Any] = json.loads(path.read_text())
    return {key: value for key, value in genotype.items() if key != "provenance"}


@pytest.mark.processes
def test_the_example_is_searched_resumed_drawn_trained_and_exported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def asks_for_it(command: str) -> bool:
        return main(command.split()) == 2 and NEEDED in capsys.readouterr().err

    search = f"search lazy --space mine --seeds 2 {PAIRS} {SEARCH}"
    assert "2 searches: " in run(search)
    path = Path("runs/s/seed1/genotype.json")
    genotype = cells(path)
    take_back(path.parent)
    run(f"{search} --resume")
    assert cells(path) == genotype and genotype["plugins"] == {"depthwise_3x3": "my_search.py"}
    lines = [json.loads(line) for line in Path("runs/s/seed1/metrics.jsonl").read_text().splitlines()]
    stages = ["operation search", "topology warm-up", "topology search"]
    assert [line["stage"] for line in lines] == stages and "beta.normal" in lines[-1]["weights"]

    assert main(["explain", "shuffle", "runs/s/seed1"]) == 2
    assert "got 'lazy'; one of your own comes with --plugin FILE_OR_MODULE" in capsys.readouterr().err

    draw = f"draw {path} -o cell.svg"
    assert asks_for_it(draw) and not Path("cell.svg").exists()
    run(draw)
    assert "depthwise 3×3" in Path("cell.svg").read_text("utf-8")

    train = f"train runs/s/seed1 {TRAIN}"
    assert asks_for_it(train) and not Path("runs/net").exists()
    run(train)
    assert asks_for_it("eval runs/net --data digits")

    export = "export runs/net --exporter torchscript -o net.onnx"
    assert asks_for_it(export) and not Path("net.onnx").exists()
    assert "written: net.onnx" in run(export)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    "words",
    [
        "lazy --order second --selection perturbation --perturbation.tuning 0",
        "lazy --space S2",
        "darts --space mine",
        "dots --space mine --warm-up 0 --topology-search.epochs 1 --topology-search.layers 3",
    ],
)
def test_each_part_goes_with_those_of_the_house(words: str) -> None:
    run(f"search {words} {SEARCH}")
    run("explain shuffle runs/s --draws 1")
    assert len(json.loads(Path("runs/s/explain/shuffle.json").read_text())["figures"]["draws"]) == 1
