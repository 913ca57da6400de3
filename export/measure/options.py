"""The options that the commands of the benchmark share, and how their values become a plan."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import Gpu
from .latency import Plan

DEVICE = re.compile(r"cpu|cuda(?::(\d{1,2}))?")
EngineName = Literal["onnxruntime", "tensorrt", "torch", "torch-compiled"]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of a benchmark; every field is an option and a keyword argument of `bench`.

    Args:
        device: cpu, cuda or cuda:N; every file on every one, of GPUs one.
        engine: what runs the networks; tensorrt on a GPU; torch and torch-compiled are PyTorch.
        batch: images in a run.
        threads: within an operator.
        seconds: at least, of either timing of a row.
        iterations: at least, likewise.
        rounds: turns that a row takes.
        max_spread: of the medians of the rounds, such as 10%; a row above it is not published.
        graph_optimisation: of ONNX Runtime.
        allow: checks that are waived. fallback: nodes may run on the CPU; unproven: files without a
            comparison with PyTorch.
        memory: measure memory too, in a process of its own for every row.
        cudnn_search: how cuDNN chooses the algorithm of a convolution.
        tf32: float32 products may be rounded to TF32 on a GPU.
        cuda_graph: further rows with a captured CUDA graph.
        engine_cache: folder that keeps TensorRT's engines.
    """

    device: tuple[str, ...] = ("cpu",)
    engine: tuple[EngineName, ...] = ("onnxruntime",)
    batch: tuple[int, ...] = Plan.batches
    threads: tuple[int, ...] = Plan.threads
    seconds: float = Plan.min_seconds
    iterations: int = Plan.min_iterations
    rounds: int = Plan.rounds
    max_spread: str = f"{Plan.max_spread:.0%}"
    graph_optimisation: Literal["all", "extended", "basic", "disabled"] = "all"
    allow: tuple[Literal["fallback", "unproven"], ...] = ()
    memory: bool = True
    cudnn_search: Literal["exhaustive", "heuristic", "default"] = "exhaustive"
    tf32: bool = True
    cuda_graph: bool = False
    engine_cache: str | Path | None = None

    def plan(self, input_size: tuple[int, int] | None = None) -> Plan:
        """Return the plan of these options. Raises DotsZooError for what makes no sense together."""
        devices, index = _devices(self.device)
        if "tensorrt" in self.engine and "cuda" not in devices:
            raise DotsZooError("engine tensorrt: expected it on a GPU, with device cuda, got device cpu")
        providers: list[Any] = []
        if "onnxruntime" in self.engine:
            providers += devices
        if "tensorrt" in self.engine:
            providers.append("tensorrt")
        in_torch: Any = tuple(name for name in self.engine if name.startswith("torch"))
        return Plan(
            providers=tuple(providers),
            torch=in_torch,
            torch_on=devices if in_torch else (),
            batches=tuple(self.batch),
            threads=tuple(self.threads),
            optimisation=self.graph_optimisation,
            input_size=input_size,
            min_iterations=self.iterations,
            min_seconds=self.seconds,
            rounds=self.rounds,
            max_spread=fraction(self.max_spread, "max_spread"),
            allow=tuple(self.allow),
            memory=self.memory,
            gpu=Gpu(
                index=index,
                cudnn_search=self.cudnn_search,
                tf32=self.tf32,
                cuda_graph=self.cuda_graph,
                engine_cache=None if self.engine_cache is None else Path(self.engine_cache),
            ),
        )


def _devices(given: Sequence[str]) -> tuple[tuple[Literal["cpu", "cuda"], ...], int]:
    """Return the devices of device in order, and the index of the GPU."""
    matched = {text: DEVICE.fullmatch(text) for text in given}
    if wrong := [text for text, match in matched.items() if match is None]:
        raise DotsZooError(f"device: expected cpu, cuda or cuda:N, got {wrong[0]!r}")
    gpus = {int(match[1] or 0) for text, match in matched.items() if match and text != "cpu"}
    if len(gpus) > 1:
        raise DotsZooError(f"device: expected one GPU, as rows take turns, got {' and '.join(given)}")
    devices: dict[Literal["cpu", "cuda"], None] = {}
    for text in given:
        devices.setdefault("cpu" if text == "cpu" else "cuda")
    return tuple(devices), max(gpus, default=0)


def fraction(text: str, option: str) -> float:
    """Return '5%' as 0.05. Raises DotsZooError for anything but a percentage."""
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4})?%", text):
        raise DotsZooError(f"{option}: expected a percentage, such as 5%, got {text!r}")
    return float(text[:-1]) / 100
