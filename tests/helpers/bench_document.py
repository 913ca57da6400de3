"""Benchmarks as JSON, made by hand: rows whose statistics and verdicts follow from what the test changes."""

from dataclasses import asdict, replace
from typing import Any

from dots_zoo.export.measure.checks import failures
from dots_zoo.export.measure.rows import Row
from dots_zoo.export.measure.timing import summarise

CALM = [[33.0, 33.25], [33.25, 33.5]]  # p50 33.25; medians 33.125 and 33.375: a spread of 0.75 %

ROW: dict[str, Any] = {
    "model": "my_model",
    "file": "m.onnx",
    "sha256": "0123456789abcdef" * 4,
    "precision": "fp32",
    "engine": "onnxruntime",
    "provider_asked": "CPUExecutionProvider",
    "provider_used": "CPUExecutionProvider",
    "nodes_by_provider": {"CPUExecutionProvider": 321},
    "options": {},
    "cuda_graph": False,
    "threads": 3,
    "graph_optimisation": "all",
    "batch": 8,
    "input_shape": [8, 3, 224, 320],
    "params": 5348032,
    "macs": 587347392,
    "flops": 1174694784,
    "build_seconds": 0.5,
    "engine_cached": None,
    "warmup_iterations": 17,
    "peak_memory_bytes": 62_100_000,
    "gpu_memory_bytes": None,
    "parity_error": 2e-6,
    "parity_tolerance": 1e-3,
    "max_spread": 0.1,
    "allowed": [],
}


def row(times: Any = CALM, host_times: Any = None, **changes: Any) -> dict[str, Any]:
    """times, host_times: samples by round, device-resident and end-to-end."""
    values = {**ROW, **changes}
    timings = {
        "resident": summarise(times, values["batch"]),
        "end_to_end": summarise(host_times or times, values["batch"]),
    }
    bare = Row(**values, **timings, failures={})
    return asdict(replace(bare, failures=failures(bare)))


def document(*rows: dict[str, Any], **machine: Any) -> dict[str, Any]:
    return {
        "schema": 2,
        "kind": "bench",
        "created": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "Some CPU @ 3 GHz", "cores": 12, "usable_cores": 2, "gpu": None, **machine},
        "versions": {"onnxruntime": "1.2.3"},
        "settings": {"rounds": 2, "threads": [3]},
        "rows": list(rows) or [row()],
    }
