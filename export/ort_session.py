"""ONNX Runtime sessions that run on the requested provider, or report where they ran instead."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from dots_zoo.runtime.errors import DotsZooError

Provider = Literal["cpu", "cuda", "tensorrt"]
Search = Literal["exhaustive", "heuristic", "default"]
Optimisation = Literal["all", "extended", "basic", "disabled"]

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
OPTIMISATIONS: dict[str, ort.GraphOptimizationLevel] = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

# ONNX Runtime's own exceptions have no common base.
ORT_ERRORS = (
    RuntimeError,
    ValueError,
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The options of a session on a GPU: ONNX Runtime's own defaults, and no engine cache.

    index: of the GPU, as CUDA counts them. cudnn_search: how cuDNN chooses the algorithm of a convolution.
    tf32: float32 products may be rounded to TF32. cuda_graph: capture the launches of one run and replay
    them. engine_cache: folder of TensorRT's engines and timings.
    """

    index: int = 0
    cudnn_search: Search = "exhaustive"
    tf32: bool = True
    cuda_graph: bool = False
    engine_cache: Path | None = None


def provider_options(
    provider: Provider, gpu: Gpu, open_input: tuple[str, Sequence[int]] | None = None
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers of a session, the requested one first, each with its options.

    open_input: (name, shape) of an input whose sizes are left open: TensorRT builds its engine for that
    shape. What TensorRT does not take goes to CUDA: on the CPU it would be a fallback.
    """
    cuda = {
        "device_id": str(gpu.index),
        "cudnn_conv_algo_search": gpu.cudnn_search.upper(),
        "use_tf32": str(int(gpu.tf32)),
        "enable_cuda_graph": str(int(gpu.cuda_graph and provider == "cuda")),
    }
    if provider == "cpu":
        return [(PROVIDERS["cpu"], {})]
    if provider == "cuda":
        return [(PROVIDERS["cuda"], cuda)]
    tensorrt = {"device_id": str(gpu.index), "trt_cuda_graph_enable": str(gpu.cuda_graph)}
    if open_input is not None:
        name, shape = open_input
        profile = f"{name}:{'x'.join(map(str, shape))}"
        tensorrt |= {f"trt_profile_{which}_shapes": profile for which in ("min", "opt", "max")}
    if gpu.engine_cache is not None:
        folder = str(gpu.engine_cache)
        tensorrt |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": folder}
        tensorrt |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": folder}
    return [(PROVIDERS["tensorrt"], tensorrt), (PROVIDERS["cuda"], cuda)]


def open_session(
    content: bytes,
    provider: Provider,
    threads: int,
    where: str,
    *,
    gpu: Gpu | None = None,
    optimisation: Optimisation = "all",
    open_input: tuple[str, Sequence[int]] | None = None,
    profile: Path | None = None,
) -> ort.InferenceSession:
    """Open a session of the ONNX file `content`; threads: within one operator, 0 for one a core.

    onnxruntime-gpu lists CUDA and TensorRT on machines without a GPU and then falls back to the CPU with no
    more than a line on stderr: here what the session reports is compared. Single nodes may still fall back;
    placement() counts them. gpu, open_input: as for provider_options. profile: prefix of the file into
    which runs are recorded. Raises DotsZooError where the provider does not start or cannot run the file.
    """
    if provider not in PROVIDERS:
        raise DotsZooError(f"unknown provider {provider!r}: expected one of {', '.join(PROVIDERS)}")
    requested = PROVIDERS[provider]
    failure = f"{where}: ONNX Runtime cannot run this file"
    if provider != "cpu":
        advice = "install the GPU's driver and libraries (see dots-zoo doctor) or ask for --device cpu"
        failure = f"{where}: {requested} does not start on this machine; {advice}"
        if hasattr(ort, "preload_dlls"):  # finds the CUDA libraries that pip installed beside torch
            ort.preload_dlls()
    if requested not in ort.get_available_providers():
        raise DotsZooError(f"{failure}: this build of ONNX Runtime has no {requested}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next run of one session would take the processors from all others.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # fatal: an error is raised, and reported by whoever catches it
    options.graph_optimization_level = OPTIMISATIONS[optimisation]
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    providers = provider_options(provider, gpu or Gpu(), open_input)
    try:
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except ORT_ERRORS as error:
        raise DotsZooError(f"{failure}: {str(error).partition(chr(10))[0]}") from error
    if session.get_providers()[0] != requested:
        raise DotsZooError(f"{failure}: the session got {', '.join(session.get_providers())}")
    return session


def placement(open_profiled: Callable[[Path], Any], run: Callable[[Any], None]) -> tuple[Any, dict[str, int]]:
    """Return (session, nodes of its optimised graph by the provider that ran them), from one recorded run.

    open_profiled: opens the session, given the prefix of the recording. The recording ends here: later runs
    are as fast as without it. Raises DotsZooError where there is no space for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_profiled(Path(folder) / "run")
        run(session)
        try:
            events = json.loads(Path(session.end_profiling()).read_bytes())
        except (OSError, ValueError) as error:
            raise DotsZooError(
                f"{tempfile.gettempdir()}: ONNX Runtime's recording of a run, which says where nodes ran, "
                "is not whole there: make space, or set TMPDIR to another folder"
            ) from error
    return session, nodes_by_provider(events)


def nodes_by_provider(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count nodes by provider in ONNX Runtime's recording of one run; each node counts once."""
    ran = {
        (event["name"], event["args"].get("node_index")): event["args"]["provider"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return dict(sorted(Counter(ran.values()).items()))


def forbid_tf32() -> None:
    """Forbid TF32 in this process, before CUDA is loaded: cuDNN's own graphs do not heed use_tf32."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
