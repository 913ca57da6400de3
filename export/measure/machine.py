"""The machine and the packages of a measurement."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import timm
import torch

import dots_zoo

GPU_STATE = (  # of nvidia-smi --query-gpu
    *("name", "driver_version", "pstate", "persistence_mode", "clocks.sm", "clocks.max.sm", "clocks.mem"),
    *("power.draw", "power.limit", "temperature.gpu"),
)


def machine() -> dict[str, Any]:
    """Return processor, cores, GPU and system; no host name.

    usable_cores: those that this process may run on. load: average number of running processes over the last
    minute, this one included.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def gpu_state() -> dict[str, str]:
    """Return clocks, power and temperature of the first GPU at this moment, as nvidia-smi prints them."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(GPU_STATE)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return {"nvidia-smi": f"does not run: {str(error).partition(chr(10))[0]}"}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return dict(zip(GPU_STATE, values, strict=True))


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part in a measurement."""
    cuda = {"cuda": str(torch.version.cuda)} if torch.cuda.is_available() else {}
    return {
        "dots_zoo": dots_zoo.__version__,
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        **cuda,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
