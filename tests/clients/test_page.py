"""The examples of docs/clients.md run as they stand there, each in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
TITLE = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCKS = [
    (TITLE.findall(PAGE[: match.start()])[-1], match.group(1))
    for match in re.finditer(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
PACKAGES = {"segmentation_models_pytorch", "transformers", "lightning", "captum", "torchao", "effdet"}


def test_every_client_has_an_example() -> None:
    assert PACKAGES <= set(re.findall(r"^(?:import|from) (\w+)", PAGE, re.MULTILINE))


@pytest.mark.processes
@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_an_example_runs(title: str, code: str, tmp_path: Path) -> None:
    for package in PACKAGES & set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)):
        pytest.importorskip(package)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path, env=environment)
