"""How long ONNX Runtime takes for one run of a file, at every batch size asked for.

Inputs and outputs are bound on the device (IO binding), so that no host copy is in the time, and the device
is synchronised before the clock stops. Every shape is warmed up: cuDNN tunes and TensorRT builds by shape.
"""

import gc
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

import dots_zoo
from dots_zoo.errors import DotsZooError

from . import graph
from .schema import Bench, Row
from .session import ORT_ERRORS, PROVIDERS, Provider, open_session

MAX_CV = 0.05  # a row above it is marked unstable
WARMUP_ITERS, WARMUP_SECONDS = 10, 0.5


@dataclass(frozen=True)
class _File:
    """What is known of one ONNX file; image: name of its input, size: (C, H, W), macs: of one image."""

    path: Path
    content: bytes
    model: str
    image: str
    size: tuple[int, int, int]
    macs: int


def bench(
    paths: Sequence[Path],
    *,
    provider: Provider = "cpu",
    batches: Sequence[int] = (1, 8),
    threads: int = 1,
    min_iters: int = 50,
    min_seconds: float = 2.0,
    keep_samples: bool = False,
    progress: Callable[[Row], None] = lambda row: None,
) -> dict[str, Any]:
    """Measure every file at every batch size; the JSON document of schema.Bench.

    A row has at least `min_iters` runs and `min_seconds` of them. threads: within one operator.
    keep_samples: put every timed run into the row. progress: called with every row when it is done. Raises
    DotsZooError for a file that is not a whole, self-contained ONNX model of images, for a batch that a
    file does not take, both before anything is measured, and for a provider that cannot run a file.
    """
    if threads < 1 or min(batches, default=0) < 1 or min_iters < 2:
        raise DotsZooError(
            f"expected threads and batches from 1 and iterations from 2 up, got {threads} threads, batches "
            f"{list(batches)}, {min_iters} iterations"
        )
    files = [_read(path, batches) for path in paths]
    rows = []
    for file in files:
        session = open_session(file.content, provider, threads, str(file.path))
        for batch in batches:
            warmup, samples = _time(session, file, batch, provider, min_iters, min_seconds)
            row = Row(
                model=file.model,
                file=file.path.name,
                sha256=hashlib.sha256(file.content).hexdigest(),
                provider_asked=PROVIDERS[provider],
                provider_used=session.get_providers()[0],
                threads=threads,
                batch=batch,
                input_shape=[batch, *file.size],
                warmup_iterations=warmup,
                macs=file.macs,
                flops=2 * file.macs,
                samples_ms=samples if keep_samples else None,
                **summarise(samples, batch),
            )
            progress(row)
            rows.append(row)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Bench(created, machine(), versions(), tuple(rows)).as_dict()


def summarise(samples_ms: Sequence[float], batch: int) -> dict[str, Any]:
    """The statistics of a row from the times of its runs, as schema.Row defines them."""
    times = np.asarray(samples_ms)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(times, [50, 90, 95, 99], method="linear"))
    mean, std = float(times.mean()), float(times.std(ddof=1))
    return {
        "iterations": len(times),
        "seconds": float(times.sum()) / 1e3,
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "mean_ms": mean,
        "std_ms": std,
        "cv": std / mean,
        "unstable": std / mean > MAX_CV,
        "throughput_per_s": 1e3 * batch / mean,
    }


def machine() -> dict[str, Any]:
    """Processor, cores and system; no host name. usable_cores: those that this process may run on."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of what takes part in a measurement."""
    return {
        "dots_zoo": dots_zoo.__version__,
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(path: Path, batches: Sequence[int]) -> _File:
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DotsZooError(f"{where}: cannot be read: {error.strerror}") from error
    model = graph.parse(content, where)
    image, fixed, size = graph.image_input(model, where)
    if fixed is not None and set(batches) != {fixed}:
        raise DotsZooError(f"{where}: was exported for a batch of {fixed} only, got --batch {list(batches)}")
    names = [entry.value for entry in model.metadata_props if entry.key == "model"]
    macs = graph.count(model, where).macs
    return _File(path, content, names[0] if names else path.stem, image, size, macs)


def _time(
    session: ort.InferenceSession,
    file: _File,
    batch: int,
    provider: Provider,
    min_iters: int,
    min_seconds: float,
) -> tuple[int, list[float]]:
    """Warm-up runs, and the milliseconds of every timed run."""
    try:
        run = _bound_run(session, file, batch, "cpu" if provider == "cpu" else "cuda")
        warmup = len(_repeat(run, WARMUP_ITERS, WARMUP_SECONDS))
        with _no_gc():
            return warmup, _repeat(run, min_iters, min_seconds)
    except ORT_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise DotsZooError(f"{file.path}: cannot run a batch of {batch}: {reason}") from error


def _bound_run(session: ort.InferenceSession, file: _File, batch: int, device: str) -> Callable[[], None]:
    """One run with input and outputs on `device`, over when the device is."""
    images = np.random.default_rng(0).standard_normal((batch, *file.size), dtype=np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(file.image, ort.OrtValue.ortvalue_from_numpy(images, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    binding.synchronize_inputs()

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _repeat(run: Callable[[], None], iterations: int, seconds: float) -> list[float]:
    """Milliseconds of every run: at least `iterations` runs, and at least `seconds` of them together."""
    samples: list[float] = []
    total = 0.0
    while len(samples) < iterations or total < seconds * 1e3:
        start = time.perf_counter_ns()
        run()
        samples.append((time.perf_counter_ns() - start) / 1e6)
        total += samples[-1]
    return samples


@contextmanager
def _no_gc() -> Iterator[None]:
    """A collection would land in some of the runs."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
