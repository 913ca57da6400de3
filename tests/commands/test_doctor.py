"""What doctor tells: versions that are too old, installations that overwrite each other, missing extras."""

import re
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from dots_zoo.commands import doctor
from helpers.paths import ROOT


def test_requirements_are_those_of_the_extra_alone() -> None:
    export = doctor.requirements("export")
    assert "onnx" in export and "torch" not in export and "mmdet" not in export
    assert ("onnxruntime-gpu" in export) != ("onnxruntime" in export), (
        "they overwrite each other: exactly one"
    )


def test_missing_extras_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "onnxscript" else "1.0")
    lines, _ = doctor.diagnose()
    [line] = [line for line in lines if line.startswith("extra export")]
    assert line.endswith("missing onnxscript: pip install 'dots-zoo[export]'")


@pytest.mark.parametrize("both", [True, False])
def test_two_onnxruntimes_are_a_problem(monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    real = doctor.installed
    monkeypatch.setattr(
        doctor, "installed", lambda name: ("1.20" if both else None) if name == "onnxruntime" else real(name)
    )
    _, problems = doctor.diagnose()
    assert any("overwrite each other" in problem for problem in problems) == both


def test_the_floors_of_the_project_are_those_of_the_readme() -> None:
    root = ROOT
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    floors = {r.name: str(r.specifier) for r in map(Requirement, project["dependencies"])}
    assert floors["torch"] == ">=2.8" and floors["torchvision"] == ">=0.23"
    readme = (root / "README.md").read_text()
    assert re.findall(r"torch (\d+\.\d+) or newer", readme) == ["2.8"]
    first, last = re.search(r"Python 3\.(\d+) to 3\.(\d+)", readme).groups()
    assert project["requires-python"] == f">=3.{first},<3.{int(last) + 1}"


def test_a_version_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=2.8", "timm>=1.0", "onnx>=9; extra == 'export'"]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    monkeypatch.setattr(doctor, "installed", lambda name: "2.7.1+cpu")
    _, problems = doctor.diagnose()
    assert "torch 2.7.1+cpu is not supported: expected >=2.8: pip install --upgrade 'torch>=2.8'" in problems
    monkeypatch.setattr(doctor, "installed", lambda name: "2.8.0a0+cu130")
    assert not [problem for problem in doctor.diagnose()[1] if "timm" in problem or "onnx " in problem]


def test_a_python_that_is_not_supported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    _, problems = doctor.diagnose()
    assert any(problem.startswith("python 3.10.4 is not supported: expected ") for problem in problems)
