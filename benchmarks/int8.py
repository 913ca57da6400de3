"""What int8 saves against float32 on one thread of the CPU provider.

python benchmarks/int8.py FOLDER_OF_IMAGES [model] [rounds] [output.json]

The plain float32 graph, the fused one, int8 as `dots-zoo export --precision int8` writes it, and int8 without
the rewrites that go before it run in turn in one process, batch 1. The time is the processor time of the one
thread, which other processes on the machine do not lengthen by making it wait. Weights that were never fitted
are as fast as any.
"""

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch

import dots_zoo
from dots_zoo.export.convert.calibration import read_images
from dots_zoo.export.convert.parity import fitted_copy
from dots_zoo.export.convert.precision import to_int8
from dots_zoo.export.convert.tasks import classify
from dots_zoo.export.convert.to_onnx import INT8_REWRITES
from dots_zoo.export.convert.trace import trace
from dots_zoo.export.measure.machine import machine
from dots_zoo.export.ort_session import open_session
from dots_zoo.fuse.fuse import fuse


def graphs(name: str, calibration: Path) -> dict[str, onnx.ModelProto]:
    """Traced and lowered as an export does it, on a copy with fitted statistics.

    There is no parity here: a deep network that was never trained amplifies the rounding of int8.
    """
    torch.manual_seed(0)
    model: Any = timm.create_model(name).eval()
    config = model.pretrained_cfg
    size = config["input_size"]
    model = fitted_copy(model, size, 0)
    images, _ = read_images(calibration, size, config["mean"], config["std"])

    def traced(network: torch.nn.Module) -> onnx.ModelProto:
        module = classify(network).module.eval()
        options: Any = {"dynamic": ["batch"], "opset": 18, "exporter": "torchscript"}
        return trace(module, torch.randn(2, *size), ["logits"], **options)

    plain, fused = traced(model), traced(fuse(model))
    return {
        "fp32": plain,
        "fp32 fused": fused,
        "int8": to_int8(traced(fuse(model, INT8_REWRITES)), images, "cpu", name)[0],
        "int8 without rewrites": to_int8(plain, images, "cpu", name)[0],
    }


def main(calibration: str, name: str, rounds: int, output: str) -> None:
    torch.set_num_threads(1)
    files = graphs(name, Path(calibration))
    contents = {label: graph.SerializeToString() for label, graph in files.items()}
    sessions = {label: open_session(content, "cpu", 1, label) for label, content in contents.items()}
    size = timm.get_pretrained_cfg(name).input_size
    image = np.random.default_rng(0).standard_normal((1, *size), dtype=np.float32)
    times: dict[str, list[float]] = {label: [] for label in sessions}
    for _ in range(rounds + 3):  # three to warm up
        for label, session in sessions.items():
            began = time.thread_time()
            session.run(None, {"image": image})
            times[label].append(1e3 * (time.thread_time() - began))
    rows: list[dict[str, Any]] = []
    for label in files:
        taken, plain = np.array(times[label][3:]), np.array(times["fp32"][3:])
        ratio = float(np.median(taken / plain))
        rows.append(
            {
                "graph": label,
                "p50_ms": round(float(np.median(taken)), 2),
                "min_ms": round(float(taken.min()), 2),
                "median_ratio": round(ratio, 3),
                "megabytes": round(len(contents[label]) / 1e6, 1),
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
