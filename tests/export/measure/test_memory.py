"""Memory is measured in a process of its own; the GPU's by what nvidia-smi says before and after."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from dots_zoo.export.measure import memory
from dots_zoo.export.measure.memory import measure, peak_memory
from dots_zoo.runtime.errors import DotsZooError
from helpers.tiny_onnx import CUDA, Gpu, save


def task(path: Path, height: int, provider: str = "CPUExecutionProvider") -> dict[str, Any]:
    return {
        "file": str(path),
        "providers": [(provider, {})],
        "threads": 1,
        "optimisation": int(ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
        "feeds": {"image": [[1, 3, height, 4], "float32"]},
    }


@pytest.mark.processes
@pytest.mark.skipif(not memory.STATUS.is_file(), reason="needs Linux")
def test_the_process_grows_by_what_the_run_holds(tmp_path: Path):
    path = save(tmp_path / "m.onnx", size=("height", "width"))
    output = 5 * 1_000_000 * 4 * 4  # bytes: channels, height, width, float32
    small, large = (peak_memory(task(path, height))["host"] for height in (6, 1_000_000))
    assert large - small > output
    assert large < 20 * output
    assert peak_memory(task(path, 6))["gpu"] is None


@pytest.mark.processes
def test_a_process_that_fails_says_why(tmp_path: Path):
    with pytest.raises(
        DotsZooError, match="none.onnx: the process that measures its memory failed: .*NO_SUCHFILE"
    ):
        peak_memory(task(tmp_path / "none.onnx", 6))


@pytest.mark.gpu_stub
def test_gpu_memory_is_the_rise_of_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    used = iter(["310\n", "450\n"])
    gpu = Gpu(CUDA).install(monkeypatch)
    commands: list[list[str]] = []

    def smi(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(stdout=next(used))

    monkeypatch.setattr(subprocess, "run", smi)
    measured = measure(task(save(tmp_path / "m.onnx"), 6, CUDA))
    assert measured["gpu"] == 140 * 2**20
    assert commands[0] == ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    assert [call[0] for call in gpu.log] == ["preload", "session", *["run with copies"] * memory.RUNS]
    assert gpu.log[1][1] == [(CUDA, {})]


@pytest.mark.gpu_stub
def test_without_nvidia_smi_it_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Gpu(CUDA).install(monkeypatch)

    def absent(command: list[str], **options: Any) -> Any:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    assert measure(task(save(tmp_path / "m.onnx"), 6, CUDA))["gpu"] is None


def test_systems_without_proc_are_left_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    assert measure(task(save(tmp_path / "m.onnx"), 6))["host"] is None
