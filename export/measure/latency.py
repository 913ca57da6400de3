"""Measure how long networks take for one run, in one interleaved benchmark.

Every row is one file in one setting. Rows take turns, in rounds, forwards and backwards, so that a machine
that drifts drifts under all of them. Two things are timed: a run with inputs and outputs bound on the device
(IO binding), and a run with the copies from and to the host. Every shape is warmed up on its own: cuDNN tunes
and TensorRT builds by shape.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import (
    OPTIMISATIONS,
    ORT_ERRORS,
    PROVIDERS,
    Gpu,
    Optimisation,
    Provider,
    forbid_tf32,
    provider_options,
)
from .checks import WAIVERS, failures
from .machine import gpu_state, machine, versions
from .memory import peak_memory
from .onnx_file import OnnxFile, read_onnx_file
from .rows import Bench, Row
from .runners import Runner, Setting, graph_runner, onnx_runner, torch_runner
from .timing import no_gc, repeat, summarise

WARMUP_ITERS, WARMUP_SECONDS = 10, 0.5

Samples = list[list[float]]  # milliseconds, by round


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The measurements of a benchmark and their precision.

    batches, threads, providers: every file in every combination, in ONNX Runtime. torch: rows of the same
    networks in PyTorch, on the devices torch_on. input_size: (height, width), for files that leave it open.
    min_iterations, min_seconds: of either timing of a row, over all rounds. rounds: turns of a row.
    max_spread: of the rounds' medians, as a fraction of p50; a row above it is not published. allow: checks
    that are waived. gpu.cuda_graph: one more row for every GPU row. memory: measure it, in a process of its
    own for every row of ONNX Runtime.
    """

    providers: tuple[Provider, ...] = ("cpu",)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = (1,)
    torch: tuple[Literal["torch", "torch-compiled"], ...] = ()
    torch_on: tuple[Literal["cpu", "cuda"], ...] = ()
    optimisation: Optimisation = "all"
    input_size: tuple[int, int] | None = None
    min_iterations: int = 50
    min_seconds: float = 2.0
    rounds: int = 5
    max_spread: float = 0.1
    allow: tuple[str, ...] = ()
    memory: bool = True
    gpu: Gpu = field(default_factory=Gpu)

    def __post_init__(self) -> None:
        counts = (*self.batches, *self.threads, self.rounds)
        if not (self.batches and self.threads) or min(counts) < 1:
            raise DotsZooError(
                f"bench: expected batches, threads and rounds from 1 up, got batches {list(self.batches)}, "
                f"threads {list(self.threads)}, {self.rounds} rounds"
            )
        if not (self.providers or (self.torch and self.torch_on)):
            raise DotsZooError("bench: expected an engine on a device, got none")
        if self.min_iterations < 2 or not self.min_seconds >= 0 or not self.max_spread > 0:
            raise DotsZooError(
                f"bench: expected iterations from 2, seconds from 0 and a spread above 0, got "
                f"{self.min_iterations} iterations, {self.min_seconds} seconds, a spread of {self.max_spread}"
            )
        for name, given, known in (
            ("provider", self.providers, PROVIDERS),
            ("graph optimisation", (self.optimisation,), OPTIMISATIONS),
            ("waiver", self.allow, WAIVERS),
        ):
            for value in given:
                if value not in known:
                    raise DotsZooError(f"bench: unknown {name} {value!r}: expected one of {', '.join(known)}")


@dataclass
class _Case:
    """One row while it is measured."""

    onnx_file: OnnxFile
    setting: Setting
    runner: Runner
    warmup: int = 0
    resident: Samples = field(default_factory=list)
    end_to_end: Samples = field(default_factory=list)

    @property
    def name(self) -> str:
        """File, engine and setting, for a line of progress."""
        graph = " with a CUDA graph" if self.setting.gpu.cuda_graph else ""
        return (
            f"{self.onnx_file.path.name}, {self.setting.engine}{graph}, {self.setting.provider}, batch "
            f"{self.setting.batch}, {self.setting.threads} threads"
        )


def measure(
    paths: Sequence[Path],
    plan: Plan | None = None,
    *,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every file in every setting of the plan; return the JSON document of rows.Bench.

    progress: called with a line now and then. Raises DotsZooError for a file that is not a whole,
    self-contained ONNX model of images, for a batch or size that a file does not take, and for a provider
    that does not start or cannot run a file, all before anything is timed.
    """
    plan = plan or Plan()
    if not paths:
        raise DotsZooError("bench: expected an ONNX file or more")
    if not plan.gpu.tf32:
        forbid_tf32()
    onnx_files = [read_onnx_file(path, plan.batches, plan.input_size) for path in paths]
    on_gpu = any(provider != "cpu" for provider in plan.providers)
    cases = []
    for case in _cases(onnx_files, plan):
        progress(f"ready: {case.name}, after {case.runner.build_seconds:.1f} s")
        cases.append(case)
    facts = machine() | ({"gpu_before": gpu_state()} if on_gpu else {})
    for case in cases:
        with _explained(case.onnx_file, case.setting):
            _warm_up(case)
    for turn in range(plan.rounds):
        progress(f"round {turn + 1} of {plan.rounds}: {len(cases)} rows")
        for case in cases if turn % 2 == 0 else reversed(cases):
            with _explained(case.onnx_file, case.setting):
                _take_turn(case, plan)
    facts |= {"gpu_after": gpu_state()} if on_gpu else {}
    rows = tuple(_row(case, plan) for case in cases)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Bench(created, facts, versions(), _settings(plan), rows).as_dict()


def _cases(onnx_files: Sequence[OnnxFile], plan: Plan) -> Iterator[_Case]:
    for onnx_file in onnx_files:
        for provider in dict.fromkeys((*plan.providers, *plan.torch_on)):
            for threads in plan.threads:
                for batch in plan.batches:
                    setting = Setting(
                        provider=provider, threads=threads, batch=batch, optimisation=plan.optimisation
                    )
                    yield from _variants(onnx_file, setting, plan)


def _variants(onnx_file: OnnxFile, setting: Setting, plan: Plan) -> Iterator[_Case]:
    """Yield what the plan asks for: the file in ONNX Runtime, with a CUDA graph, and in PyTorch."""
    plain = replace(setting, gpu=_gpu(onnx_file, setting, plan.gpu, cuda_graph=False))
    if setting.provider in plan.providers:
        case = _open(onnx_file, plain, lambda: onnx_runner(onnx_file, plain))
        yield case
        if plan.gpu.cuda_graph and setting.provider != "cpu":
            graph = replace(setting, gpu=_gpu(onnx_file, setting, plan.gpu, cuda_graph=True))
            yield _open(onnx_file, graph, lambda: graph_runner(onnx_file, graph, case.runner.nodes))
    for engine in plan.torch if setting.provider in plan.torch_on else ():
        in_torch = replace(plain, engine=engine)
        yield _open(onnx_file, in_torch, partial(torch_runner, onnx_file, in_torch))


def _gpu(onnx_file: OnnxFile, setting: Setting, gpu: Gpu, cuda_graph: bool) -> Gpu:
    """Return the GPU options, with a folder in the engine cache that holds no other engine than this one."""
    folder = gpu.engine_cache
    if folder is not None and setting.provider == "tensorrt":
        size = "x".join(map(str, (setting.batch, *onnx_file.size)))
        folder = folder / f"{onnx_file.sha256[:16]}-{size}{'-graph' if cuda_graph else ''}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DotsZooError(f"{folder}: the engine cache cannot be made: {error.strerror}") from error
    return replace(gpu, cuda_graph=cuda_graph, engine_cache=folder)


def _open(onnx_file: OnnxFile, setting: Setting, make_runner: Callable[[], Runner]) -> _Case:
    with _explained(onnx_file, setting):
        return _Case(onnx_file, setting, make_runner())


@contextmanager
def _explained(onnx_file: OnnxFile, setting: Setting) -> Iterator[None]:
    """Turn an error of ONNX Runtime or PyTorch into one sentence."""
    try:
        yield
    except ORT_ERRORS as error:
        reason = str(error).partition("\n")[0]
        raise DotsZooError(f"{onnx_file.path}: cannot run a batch of {setting.batch}: {reason}") from error


def _warm_up(case: _Case) -> None:
    case.runner.prepare()
    for run in (case.runner.resident, case.runner.end_to_end):
        case.warmup += len(repeat(run, WARMUP_ITERS, WARMUP_SECONDS / 2))


def _take_turn(case: _Case, plan: Plan) -> None:
    """Time one round of either timing, after an untimed run on the caches as another network left them."""
    case.runner.prepare()
    iterations = -(-plan.min_iterations // plan.rounds)  # rounded up
    for run, samples in ((case.runner.resident, case.resident), (case.runner.end_to_end, case.end_to_end)):
        run()
        case.warmup += 1
        with no_gc():
            samples.append(repeat(run, iterations, plan.min_seconds / plan.rounds))


def _row(case: _Case, plan: Plan) -> Row:
    """Return the row of a case: its file, its setting, the statistics of its times, and failed checks."""
    onnx_file, setting, runner = case.onnx_file, case.setting, case.runner
    error, tolerance = onnx_file.parity()
    is_onnx = setting.engine == "onnxruntime"
    memory = _memory(case) if plan.memory and is_onnx else {"host": None, "gpu": None}
    row = Row(
        model=onnx_file.model,
        file=onnx_file.path.name,
        sha256=onnx_file.sha256,
        precision=onnx_file.precision if is_onnx else "fp32",
        engine=setting.engine,
        provider_asked=PROVIDERS[setting.provider] if is_onnx else setting.device,
        provider_used=runner.provider,
        nodes_by_provider=runner.nodes,
        options=runner.options,
        cuda_graph=setting.gpu.cuda_graph,
        threads=setting.threads,
        graph_optimisation=setting.optimisation if is_onnx else "none",
        batch=setting.batch,
        input_shape=[setting.batch, *onnx_file.size],
        params=onnx_file.params,
        macs=onnx_file.macs,
        flops=2 * onnx_file.macs,
        build_seconds=runner.build_seconds,
        engine_cached=runner.engine_cached,
        warmup_iterations=case.warmup,
        peak_memory_bytes=memory["host"],
        gpu_memory_bytes=memory["gpu"],
        parity_error=error if is_onnx else None,
        parity_tolerance=tolerance if is_onnx else None,
        max_spread=plan.max_spread,
        allowed=list(plan.allow),
        resident=summarise(case.resident, setting.batch),
        end_to_end=summarise(case.end_to_end, setting.batch),
        failures={},
    )
    return replace(row, failures=failures(row))


def _memory(case: _Case) -> dict[str, int | None]:
    """Return the peak memory of a row, None where TensorRT would have to build its engine again."""
    onnx_file, setting = case.onnx_file, case.setting
    if setting.provider == "tensorrt" and setting.gpu.engine_cache is None:
        return {"host": None, "gpu": None}
    images = onnx_file.images(setting.batch)
    plain = replace(setting.gpu, cuda_graph=False)
    return peak_memory(
        {
            "file": str(onnx_file.path),
            "providers": provider_options(setting.provider, plain, onnx_file.open_input(setting.batch)),
            "threads": setting.threads,
            "optimisation": int(OPTIMISATIONS[setting.optimisation]),
            "feeds": {onnx_file.input_name: [images.shape, str(images.dtype)]},
        }
    )


def _settings(plan: Plan) -> dict[str, Any]:
    """Return the plan for the JSON; the path of the engine cache says nothing about the times."""
    settings = asdict(plan)
    settings["gpu"]["engine_cache"] = plan.gpu.engine_cache is not None
    return settings
