"""Measure the memory of a run, in a process that does nothing else.

This file is also the program of that process. It imports neither torch nor dots_zoo, which would take
seconds and hide what the run needs among what they need.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
RUNS = 3


def peak_memory(task: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the bytes on `host` and `gpu` that making a session and running it takes; None where unknown.

    task: `file`, `providers` (with options), `threads`, `optimisation` (a level of ONNX Runtime, by number),
    `feeds` (input -> [shape, numpy type]). Host memory is read from Linux' /proc, GPU memory from nvidia-smi.
    Raises DotsZooError where the process fails.
    """
    from dots_zoo.runtime.errors import DotsZooError

    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DotsZooError(f"{task['file']}: the process that measures its memory failed: {last}")
    measured: dict[str, int | None] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(task: Mapping[str, Any]) -> dict[str, int | None]:
    """Return what peak_memory does, for this process, which must not have done anything else before."""
    import numpy as np
    import onnxruntime as ort

    on_gpu = task["providers"][0][0] != "CPUExecutionProvider"
    if on_gpu and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel(task["optimisation"])
    feeds = {name: np.zeros(shape, dtype) for name, (shape, dtype) in task["feeds"].items()}
    host, gpu = status("VmRSS"), gpu_used() if on_gpu else None
    providers = [(name, settings) for name, settings in task["providers"]]
    session = ort.InferenceSession(task["file"], options, providers=providers, enable_fallback=0)
    for _ in range(RUNS):
        session.run(None, feeds)
    return {
        "host": _rise(host, status("VmHWM")),
        "gpu": _rise(gpu, gpu_used() if on_gpu else None),
    }


def status(key: str) -> int | None:
    """Return resident bytes: VmRSS is now, VmHWM the peak so far; None where there is no /proc."""
    if not STATUS.is_file():
        return None
    values = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(values[key].split()[0]) * 1024 if key in values else None


def gpu_used() -> int | None:
    """Return the bytes in use on the first GPU, by all processes; None without nvidia-smi."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0]) * 2**20
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


def _rise(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
