"""What a measurement was made on."""

import platform
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from dots_zoo.export.measure.machine import gpu_state, machine, versions


def test_machine_has_no_host_name():
    facts = machine()
    assert facts["cpu"] and facts["cores"] >= facts["usable_cores"] >= 1 and facts["load"] >= 0
    assert platform.node() not in facts["system"]


@pytest.mark.gpu_stub
def test_clocks_and_power_of_the_gpu(monkeypatch: pytest.MonkeyPatch):
    commands = []

    def smi(command: list[str], **options: Any) -> Any:
        commands.append(command)
        line = "Some GPU, 999.1, P0, Enabled, 1980 MHz, 1980 MHz, 2619 MHz, 120.5 W, 700.00 W, 41\n"
        return SimpleNamespace(stdout=line)

    monkeypatch.setattr(subprocess, "run", smi)
    state = gpu_state()
    assert (state["name"], state["pstate"], state["clocks.sm"]) == ("Some GPU", "P0", "1980 MHz")
    assert (state["power.draw"], state["temperature.gpu"]) == ("120.5 W", "41")
    assert commands[0][0] == "nvidia-smi" and "pstate" in commands[0][2]


def test_a_machine_without_nvidia_smi_says_so(monkeypatch: pytest.MonkeyPatch):
    def absent(command: list[str], **options: Any) -> Any:
        raise FileNotFoundError(2, "No such file", command[0])

    monkeypatch.setattr(subprocess, "run", absent)
    assert gpu_state() == {"nvidia-smi": "does not run: [Errno 2] No such file: 'nvidia-smi'"}


def test_versions_name_what_takes_part():
    assert {"dots_zoo", "onnxruntime", "onnx", "torch", "timm", "python"} <= versions().keys()
