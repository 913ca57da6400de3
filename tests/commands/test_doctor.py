"""What doctor tells: installations that overwrite each other, extras that are missing."""

import pytest

from dots_zoo.commands import doctor


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
