"""The quickstart, from a folder of photos to a measured file: every line of the page, in order."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dots_zoo.commands.cli import main
from helpers.paths import ROOT

PAGE = (ROOT / "docs/quickstart.md").read_text()


def blocks() -> list[tuple[str, str]]:
    """Return (language, text) of the page's blocks of commands and of Python, in order."""
    parts = PAGE.split("```")[1::2]
    named = [part.partition("\n") for part in parts]
    return [(language, text) for language, _, text in named if language]


@pytest.mark.processes
def test_every_line_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs/examples", "docs/examples")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed = {}
    for language, text in blocks():
        assert language in ("sh", "python")
        if language == "python":
            done = subprocess.run(
                [sys.executable, "-c", text], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            printed["python"] = done.stdout
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "python":
                assert subprocess.run([sys.executable, *words[1:]], env=environment).returncode == 0
                continue
            assert words[0] == "dots-zoo"
            capsys.readouterr()
            assert main(words[1:]) == 0, line
            printed[" ".join(words[1:3])] = capsys.readouterr().out
    assert len(list(Path("photos").glob("*/*.png"))) == 300
    score = json.loads(Path("runs/net/run.json").read_text())["score"]
    assert score["images"] == 60 and score["accuracy"] > 0.9
    assert "next: dots-zoo predict runs/net" in printed["train runs/cell"]
    assert "writing" in printed["eval runs/net"]
    first = "photos/flower/000.png: flower "
    assert printed["predict net.onnx"].startswith(first) and first in printed["predict runs/net"]
    answers = json.loads(Path("predictions.json").read_text())
    assert "temple" in json.dumps(answers)
    for picture in ("confusion.png", "sheet.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 100
    assert "dots-zoo report bench.json" in printed["bench net.onnx"]
    assert "[" in printed["python"] and Path("report.html").is_file() and Path("python.html").is_file()
