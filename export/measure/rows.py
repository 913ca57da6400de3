"""The row of a benchmark, and the benchmark."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .timing import Timing

SCHEMA = 2
KIND = "bench"


@dataclass(frozen=True)
class Row:
    """One network in one setting. Times are of one run of the whole batch.

    model: the name in the file's metadata, the file's own where there is none. sha256: of the file.
    precision: fp32, fp16, bf16 or int8, read off the graph. engine: onnxruntime, torch or torch-compiled.
    provider_used: what the session reported. nodes_by_provider: nodes of the optimised graph, by the
    provider that ran them; empty for torch. options: as handed to the provider. cuda_graph: a captured
    graph was replayed. threads: within one operator. input_shape: (batch, C, H, W). macs: of one
    image; flops: 2 * macs. build_seconds: making the session and its first run, in which TensorRT builds its
    engine and cuDNN searches; engine_cached: whether TensorRT found one, None for the others.
    warmup_iterations: untimed runs, of either kind. peak_memory_bytes: what a process that does nothing else
    grows by, None where that cannot be told; gpu_memory_bytes: what the GPU's used memory grows by.
    parity_error: largest difference between the graph and torch as the file records it, in movements of the
    output, and what was allowed; None where the file records none. max_spread: of the medians of the rounds.
    allowed: checks that were waived. resident: input and output on the device. end_to_end: with copies from
    and to the host. failures: check -> why the row must not be published.
    """

    model: str
    file: str
    sha256: str
    precision: str
    engine: str
    provider_asked: str
    provider_used: str
    nodes_by_provider: dict[str, int]
    options: dict[str, str]
    cuda_graph: bool
    threads: int
    graph_optimisation: str
    batch: int
    input_shape: list[int]
    params: int
    macs: int
    flops: int
    build_seconds: float
    engine_cached: bool | None
    warmup_iterations: int
    peak_memory_bytes: int | None
    gpu_memory_bytes: int | None
    parity_error: float | None
    parity_tolerance: float | None
    max_spread: float
    allowed: list[str]
    resident: Timing
    end_to_end: Timing
    failures: dict[str, str]


@dataclass(frozen=True)
class Bench:
    """All rows of one run on one machine."""

    created: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"schema": SCHEMA, "kind": KIND, **asdict(self)}
