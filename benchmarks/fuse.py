"""What every rewrite of `dots_zoo.fuse.fuse` saves in ONNX Runtime on the CPU, for every registered model.

python benchmarks/fuse.py docs/fuse.json [rounds] [name pattern] [threads, such as 1,2]

A column adds one rewrite to those before it. All graphs of a model run in turn in one process; a cell is the
median over the rounds of (time of the graph / time of the plain graph in the same round), batch 1. With one
thread the time is the processor time of that thread, which other processes on the machine do not lengthen by
making it wait; with two it is wall time, and only a quiet machine tells.
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
from torch import Tensor, nn

import dots_zoo
from dots_zoo.export.convert.trace import INPUT, trace
from dots_zoo.export.measure.machine import machine
from dots_zoo.export.ort_session import open_session
from dots_zoo.fuse.fuse import fuse

STEPS = ("shift", "fold", "relu", "early_relu", "sums", "chains", "parallel")
CLOCKS = {1: time.thread_time, 2: time.perf_counter}  # threads -> seconds


class _Named(nn.Module):
    """The exporters name the input as the argument of forward is named."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.model(image)
        return out


def graphs(name: str) -> tuple[dict[str, onnx.ModelProto], np.ndarray]:
    """The plain graph and one a step, and an image."""
    model = timm.create_model(name).eval()
    image = torch.randn(1, *model.pretrained_cfg["input_size"])
    variants = {"plain": model} | {step: fuse(model, STEPS[: i + 1]) for i, step in enumerate(STEPS)}
    options: Any = {"dynamic": (), "opset": 18, "exporter": "torchscript"}
    return {
        step: trace(_Named(v).eval(), image, ["logits"], **options) for step, v in variants.items()
    }, image.numpy()


def measure(name: str, rounds: int, counts: list[int]) -> list[dict[str, Any]]:
    """A row for each number of threads: median ratios, the plain median in ms, nodes of each graph."""
    files, image = graphs(name)
    convs = {step: sum(n.op_type == "Conv" for n in g.graph.node) for step, g in files.items()}
    nodes = {step: len([n for n in g.graph.node if n.op_type != "Constant"]) for step, g in files.items()}
    rows = []
    for threads in counts:
        sessions = {
            step: open_session(g.SerializeToString(), "cpu", threads, name) for step, g in files.items()
        }
        times: dict[str, list[float]] = {step: [] for step in sessions}
        for _ in range(rounds + 3):
            for step, session in sessions.items():
                began = CLOCKS[threads]()
                session.run(None, {INPUT: image})
                times[step].append(1e3 * (CLOCKS[threads]() - began))
        plain = np.array(times["plain"][3:])  # the first three warm up
        ratios = {step: round(float(np.median(np.array(times[step][3:]) / plain)), 3) for step in STEPS}
        rows.append(
            {
                "model": name,
                "threads": threads,
                "plain_p50_ms": round(float(np.median(plain)), 2),
                "plain_min_ms": round(float(plain.min()), 2),
                "ratios": ratios,
                "convolutions": convs,
                "nodes": nodes,
            }
        )
    return rows


def main(output: str, rounds: int, pattern: str, counts: list[int]) -> None:
    torch.set_num_threads(1)
    names = [n for n in timm.list_models(pattern, module="zoo") if not n.startswith("cell_")]
    rows = []
    print(f"{'model':32} threads  plain ms  " + "  ".join(STEPS))
    for name in names:
        for row in measure(name, rounds, counts):
            rows.append(row)
            cells = "  ".join(f"{row['ratios'][step]:{len(step)}.3f}" for step in STEPS)
            print(f"{name:32} {row['threads']:7}  {row['plain_p50_ms']:8.2f}  {cells}", flush=True)
    versions = {"dots_zoo": dots_zoo.__version__, "onnxruntime": ort.__version__, "torch": torch.__version__}
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions,
        "rounds": rounds,
        "rows": rows,
    }
    Path(output).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    words = sys.argv[1:] + ["docs/fuse.json", "40", "*", "1,2"][len(sys.argv) - 1 :]
    main(words[0], int(words[1]), words[2], [int(number) for number in words[3].split(",")])
