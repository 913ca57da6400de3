"""What int8 saves against float32 on one thread of the CPU provider, and how far its answers are off.

python benchmarks/int8.py FOLDER_OF_IMAGES [model] [rounds] [output.json]

The plain float32 graph, the fused one, float16, int8 and int8 of the fused network run in turn in one
process, batch 1. The time is the processor time of the one thread, which other processes on the machine do
not lengthen by making it wait. Weights that were never fitted are as fast as any.
"""

import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import timm
import torch

import dots_zoo
from dots_zoo.export.machine import machine
from dots_zoo.export.session import open_session
from dots_zoo.export.to_onnx import Exported, Lowering, export_onnx


def exports(name: str, calibration: Path, folder: Path) -> dict[str, Exported]:
    torch.manual_seed(0)
    model = timm.create_model(name)
    lowerings = {
        "fp32": (Lowering(), False),
        "fp32 fused": (Lowering(), True),
        "fp16 fused": (Lowering("fp16"), True),
        "int8": (Lowering("int8", calibration=calibration), False),
        "int8 fused": (Lowering("int8", calibration=calibration), True),
    }
    return {
        label: export_onnx(model, folder / f"{i}.onnx", lowering=lowering, fuse=fuse, exporter="torchscript")
        for i, (label, (lowering, fuse)) in enumerate(lowerings.items())
    }


def main(calibration: str, name: str, rounds: int, output: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = exports(name, Path(calibration), Path(folder))
        contents = {label: done.path.read_bytes() for label, done in files.items()}
    sessions = {label: open_session(content, "cpu", 1, label) for label, content in contents.items()}
    [_, channels, height, width] = files["fp32"].shape
    image = np.random.default_rng(0).standard_normal((1, channels, height, width), dtype=np.float32)
    times: dict[str, list[float]] = {label: [] for label in sessions}
    for _ in range(rounds + 3):  # three to warm up
        for label, session in sessions.items():
            began = time.thread_time()
            session.run(None, {"image": image})
            times[label].append(1e3 * (time.thread_time() - began))
    rows: list[dict[str, Any]] = []
    for label, done in files.items():
        taken, plain = np.array(times[label][3:]), np.array(times["fp32"][3:])
        ratio, parity = float(np.median(taken / plain)), done.parity.outputs[0]
        rows.append(
            {
                "graph": label,
                "p50_ms": round(float(np.median(taken)), 2),
                "min_ms": round(float(taken.min()), 2),
                "median_ratio": round(ratio, 3),
                "megabytes": round(len(contents[label]) / 1e6, 1),
                "mean_difference_of_movement": parity.mean_difference / parity.movement,
            }
        )
        p50, least = rows[-1]["p50_ms"], rows[-1]["min_ms"]
        print(f"{label:24} p50 {p50:6.2f} ms, min {least:6.2f} ms, ratio {ratio:.3f}")
    versions = {"dots_zoo": dots_zoo.__version__, "onnxruntime": ort.__version__, "torch": torch.__version__}
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "model": name,
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions,
        "rounds": rounds,
        "rows": rows,
    }
    Path(output).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    words = sys.argv[1:] + ["", "dots_imagenet", "60", "docs/int8.json"][len(sys.argv) - 1 :]
    main(words[0], words[1], int(words[2]), words[3])
