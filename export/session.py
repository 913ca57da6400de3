"""ONNX Runtime sessions that run where they were told to, or not at all."""

from typing import Literal

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from dots_zoo.errors import DotsZooError

Provider = Literal["cpu", "cuda", "tensorrt"]

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
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


def open_session(content: bytes, provider: Provider, threads: int, where: str) -> ort.InferenceSession:
    """A session of the ONNX file `content` on `provider`; threads: within one operator, 0 for one a core.

    onnxruntime-gpu lists CUDA and TensorRT on machines without a GPU and then falls back to the CPU with no
    more than a line on stderr: here what the session reports is compared, and no single node may fall back
    either. Raises DotsZooError where the provider does not start or cannot run the whole graph.
    """
    if provider not in PROVIDERS:
        raise DotsZooError(f"unknown provider {provider!r}: expected one of {', '.join(PROVIDERS)}")
    wanted = PROVIDERS[provider]
    if provider == "cpu":
        return _create(content, wanted, threads, False, f"{where}: ONNX Runtime cannot run this file")
    if hasattr(ort, "preload_dlls"):  # finds the CUDA libraries that pip installed beside torch
        ort.preload_dlls()
    advice = "install the GPU's driver and libraries (see dots-zoo doctor) or ask for --provider cpu"
    absent = f"{where}: {wanted} does not start on this machine; {advice}"
    session = _create(content, wanted, threads, False, absent)
    if session.get_providers()[0] != wanted:
        raise DotsZooError(f"{absent}: the session got {', '.join(session.get_providers())}")
    return _create(content, wanted, threads, True, f"{where}: {wanted} cannot run every node")


def _create(
    content: bytes, wanted: str, threads: int, no_fallback: bool, failure: str
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    if no_fallback:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        if wanted not in ort.get_available_providers():
            raise DotsZooError(f"{failure}: this build of ONNX Runtime has no {wanted}")
        return ort.InferenceSession(content, options, providers=[wanted], enable_fallback=0)
    except ORT_ERRORS as error:
        raise DotsZooError(f"{failure}: {str(error).partition(chr(10))[0]}") from error
